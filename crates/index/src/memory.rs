use crate::{CollectionSpec, Error, Filter, IdPage, Point, Query, Search, SparseEmbedder, SparseVector, VectorIndex};
use async_trait::async_trait;
use groundtone_types::{Chunk, Collection, ContentHash, Snippet, Tenant, cosine};
use std::collections::{BTreeMap, HashMap};
use std::sync::{PoisonError, RwLock};
use uuid::Uuid;

/// Exact search in memory: the reference that the engines are compared with, and the index of unit tests. Nothing is durable.
#[derive(Default)]
pub struct MemoryIndex {
    collections: RwLock<BTreeMap<Collection, Stored>>,
    aliases: RwLock<BTreeMap<Collection, Collection>>,
}

struct Stored {
    dimensions: usize,
    points: BTreeMap<(Tenant, Uuid), Point>,
}

/// BM25's terms without stemming or stop words: each lower-cased word is hashed, its weight is the saturated term frequency. For tests.
pub struct WordHashSparse;

impl SparseEmbedder for WordHashSparse {
    fn id(&self) -> String {
        "word-hash".to_owned()
    }

    fn document(&self, text: &str) -> SparseVector {
        let mut counts: BTreeMap<u32, f32> = BTreeMap::new();
        for word in text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()) {
            *counts.entry(hash(&word.to_lowercase())).or_default() += 1.0;
        }
        SparseVector {
            indices: counts.keys().copied().collect(),
            values: counts.values().map(|count| count * 2.2 / (count + 1.2)).collect(),
        }
    }

    fn query(&self, text: &str) -> SparseVector {
        let vector = self.document(text);
        SparseVector { values: vec![1.0; vector.indices.len()], ..vector }
    }
}

fn hash(word: &str) -> u32 {
    u32::from_str_radix(&ContentHash::of(word.as_bytes()).as_str()[..8], 16).unwrap_or_default()
}

impl MemoryIndex {
    fn target(&self, name: &Collection) -> Collection {
        self.aliases.read().unwrap_or_else(PoisonError::into_inner).get(name).unwrap_or(name).clone()
    }

    fn read<T>(&self, name: &Collection, work: impl FnOnce(&Stored) -> Result<T, Error>) -> Result<T, Error> {
        let name = &self.target(name);
        let collections = self.collections.read().unwrap_or_else(PoisonError::into_inner);
        work(collections.get(name).ok_or_else(|| Error::NoCollection(name.clone()))?)
    }

    fn write<T>(&self, name: &Collection, work: impl FnOnce(&mut Stored) -> Result<T, Error>) -> Result<T, Error> {
        let name = &self.target(name);
        let mut collections = self.collections.write().unwrap_or_else(PoisonError::into_inner);
        work(collections.get_mut(name).ok_or_else(|| Error::NoCollection(name.clone()))?)
    }
}

impl Stored {
    fn admitted<'a>(&'a self, tenant: &'a Tenant, filter: &'a Filter) -> impl Iterator<Item = &'a Point> {
        self.points.iter().filter(move |((owner, _), point)| owner == tenant && filter.admits(&point.chunk)).map(|(_, point)| point)
    }

    fn check(&self, name: &Collection, given: usize) -> Result<(), Error> {
        if given == self.dimensions {
            Ok(())
        } else {
            Err(Error::DimensionMismatch { collection: name.clone(), stored: self.dimensions, given })
        }
    }

    fn ranked(&self, mut scored: Vec<(&Point, f32)>, limit: usize) -> Vec<Snippet> {
        scored.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.id.cmp(&b.0.id)));
        scored.into_iter().take(limit).map(|(point, score)| Snippet { id: point.id, chunk: point.chunk.clone(), score }).collect()
    }

    fn dense(&self, tenant: &Tenant, filter: &Filter, query: &[f32], limit: usize) -> Vec<Snippet> {
        self.ranked(self.admitted(tenant, filter).map(|point| (point, cosine(&point.dense, query))).collect(), limit)
    }

    /// IDF over the collection, as Qdrant computes it: ln(1 + (N - df + 0.5) / (df + 0.5)).
    fn sparse(&self, tenant: &Tenant, filter: &Filter, query: &SparseVector, limit: usize) -> Vec<Snippet> {
        let total = self.points.len() as f32;
        let idf: HashMap<u32, f32> = query
            .indices
            .iter()
            .map(|index| {
                let holders = self.points.values().filter(|point| point.sparse.indices.contains(index)).count() as f32;
                (*index, (1.0 + (total - holders + 0.5) / (holders + 0.5)).ln())
            })
            .collect();
        let score = |point: &Point| -> f32 {
            let terms = point.sparse.indices.iter().zip(&point.sparse.values);
            terms.filter_map(|(index, value)| Some(value * idf.get(index)?)).sum()
        };
        let scored = self.admitted(tenant, filter).map(|point| (point, score(point))).filter(|(_, score)| *score > 0.0).collect();
        self.ranked(scored, limit)
    }
}

#[async_trait]
impl VectorIndex for MemoryIndex {
    async fn ensure(&self, spec: &CollectionSpec) -> Result<(), Error> {
        let mut collections = self.collections.write().unwrap_or_else(PoisonError::into_inner);
        let stored =
            collections.entry(spec.name.clone()).or_insert_with(|| Stored { dimensions: spec.dimensions, points: BTreeMap::new() });
        stored.check(&spec.name, spec.dimensions)
    }

    async fn remove(&self, name: &Collection) -> Result<(), Error> {
        self.collections.write().unwrap_or_else(PoisonError::into_inner).remove(name);
        Ok(())
    }

    async fn upsert(&self, tenant: &Tenant, collection: &Collection, points: Vec<Point>) -> Result<(), Error> {
        self.write(collection, |stored| {
            points.iter().try_for_each(|point| stored.check(collection, point.dense.len()))?;
            stored.points.extend(points.into_iter().map(|point| ((tenant.clone(), point.id), point)));
            Ok(())
        })
    }

    async fn delete(&self, tenant: &Tenant, collection: &Collection, ids: &[Uuid]) -> Result<(), Error> {
        self.write(collection, |stored| {
            for id in ids {
                stored.points.remove(&(tenant.clone(), *id));
            }
            Ok(())
        })
    }

    async fn query(&self, tenant: &Tenant, collection: &Collection, query: Query) -> Result<Vec<Snippet>, Error> {
        self.read(collection, |stored| match &query.search {
            Search::Dense(vector) => {
                stored.check(collection, vector.len()).map(|()| stored.dense(tenant, &query.filter, vector, query.limit))
            }
            Search::Sparse(vector) => Ok(stored.sparse(tenant, &query.filter, vector, query.limit)),
        })
    }

    async fn ids(
        &self,
        tenant: &Tenant,
        collection: &Collection,
        filter: &Filter,
        from: Option<Uuid>,
        limit: usize,
    ) -> Result<IdPage, Error> {
        self.read(collection, |stored| {
            let mut ids = stored.admitted(tenant, filter).map(|point| point.id).skip_while(|id| from.is_some_and(|from| *id < from));
            let page = ids.by_ref().take(limit).collect();
            Ok(IdPage { ids: page, next: ids.next() })
        })
    }

    async fn missing(&self, tenant: &Tenant, collection: &Collection, ids: &[Uuid]) -> Result<Vec<Uuid>, Error> {
        self.read(collection, |stored| Ok(ids.iter().copied().filter(|id| !stored.points.contains_key(&(tenant.clone(), *id))).collect()))
    }

    async fn vectors(&self, tenant: &Tenant, collection: &Collection, ids: &[Uuid]) -> Result<Vec<Option<Vec<f32>>>, Error> {
        self.read(collection, |stored| {
            Ok(ids.iter().map(|id| stored.points.get(&(tenant.clone(), *id)).map(|point| point.dense.clone())).collect())
        })
    }

    async fn chunks(&self, tenant: &Tenant, collection: &Collection, ids: &[Uuid]) -> Result<Vec<Chunk>, Error> {
        self.read(collection, |stored| {
            Ok(ids.iter().filter_map(|id| stored.points.get(&(tenant.clone(), *id))).map(|point| point.chunk.clone()).collect())
        })
    }

    async fn count(&self, tenant: &Tenant, collection: &Collection, filter: &Filter) -> Result<usize, Error> {
        self.read(collection, |stored| Ok(stored.admitted(tenant, filter).count()))
    }

    async fn set_alias(&self, alias: &Collection, target: &Collection) -> Result<(), Error> {
        self.read(target, |_| Ok(()))?;
        self.aliases.write().unwrap_or_else(PoisonError::into_inner).insert(alias.clone(), target.clone());
        Ok(())
    }

    async fn resolve(&self, alias: &Collection) -> Result<Option<Collection>, Error> {
        Ok(self.aliases.read().unwrap_or_else(PoisonError::into_inner).get(alias).cloned())
    }

    async fn collections(&self) -> Result<Vec<Collection>, Error> {
        Ok(self.collections.read().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect())
    }

    async fn settle(&self, _collection: &Collection) -> Result<(), Error> {
        Ok(())
    }

    async fn ready(&self) -> Result<(), Error> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn memory_keeps_every_promise() {
        assert_eq!(crate::conformance::check(&MemoryIndex::default(), &WordHashSparse).await, Ok(()));
    }

    #[tokio::test]
    async fn no_tenant_sees_another_ones_points_whatever_the_filter() {
        let done = crate::conformance::isolation(&MemoryIndex::default(), &WordHashSparse, 100_000, 4).await.unwrap();
        assert!(done.cases == 100_000 && done.returned > 500_000, "{done:?}");
    }
}
