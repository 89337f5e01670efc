//! The promises of [`VectorIndex`], as a suite that every index passes: in memory, embedded, and over the wire.

use crate::memory::fuse;
use crate::{CollectionSpec, Error, Filter, Point, Query, Search, SparseEmbedder, VectorIndex};
use groundtone_types::{Chunk, Collection, DocumentId, Snippet, Span, Tenant};
use std::collections::BTreeSet;
use uuid::Uuid;

const DIMENSIONS: usize = 8;

/// `Err` says which promise is broken. The suite makes and removes its own collections.
pub async fn check(index: &dyn VectorIndex, sparse: &dyn SparseEmbedder) -> Result<(), String> {
    let suite = Suite {
        index,
        sparse,
        name: Collection::new("conformance").map_err(|e| e.to_string())?,
        tenant: Tenant::default(),
        other: Tenant::new("other").map_err(|e| e.to_string())?,
    };
    index.remove(&suite.name).await.map_err(failed("removing a collection that is not there"))?;
    suite.collections().await?;
    suite.round_trip().await?;
    suite.tenants().await?;
    suite.ranking().await?;
    suite.replacing_and_deleting().await?;
    suite.many().await?;
    suite.aliases().await?;
    index.remove(&suite.name).await.map_err(failed("removing a collection"))?;
    match index.count(&suite.tenant, &suite.name, &Filter::default()).await {
        Err(Error::NoCollection(_)) => Ok(()),
        other => Err(format!("a removed collection answered {other:?}")),
    }
}

fn failed(what: &'static str) -> impl Fn(Error) -> String {
    move |error| format!("{what}: {error}")
}

fn expect(promise: &str, holds: bool, saw: &dyn std::fmt::Debug) -> Result<(), String> {
    if holds { Ok(()) } else { Err(format!("{promise}; saw {saw:?}")) }
}

struct Suite<'a> {
    index: &'a dyn VectorIndex,
    sparse: &'a dyn SparseEmbedder,
    name: Collection,
    tenant: Tenant,
    other: Tenant,
}

/// A vector that leans towards one axis, the more the larger `lean`.
fn lean(axis: usize, lean: f32) -> Vec<f32> {
    (0..DIMENSIONS).map(|at| if at == axis { lean } else { 0.1 }).collect()
}

impl Suite<'_> {
    fn point(&self, document: &str, ordinal: u32, text: &str, dense: Vec<f32>) -> Result<Point, String> {
        let chunk = Chunk {
            document: DocumentId::new(document).map_err(|e| e.to_string())?,
            ordinal,
            span: Span { start: 3, end: 3 + text.len() },
            heading_path: vec!["Größe › 検索".into(), "🚲".into()],
            title: "Ti\"tle".into(),
            url: "https://example.test/a?b=c&d".into(),
            text: text.to_owned(),
            page: None,
            parent: None,
        };
        Ok(Point { id: chunk.point_id(), dense, sparse: self.sparse.document(text), chunk })
    }

    async fn upsert(&self, tenant: &Tenant, points: Vec<Point>) -> Result<(), String> {
        self.index.upsert(tenant, &self.name, points).await.map_err(failed("upsert"))
    }

    async fn query(&self, tenant: &Tenant, search: Search, filter: Filter, limit: usize) -> Result<Vec<Snippet>, String> {
        self.index.query(tenant, &self.name, Query { search, filter, limit }).await.map_err(failed("query"))
    }

    async fn count(&self, tenant: &Tenant, filter: &Filter) -> Result<usize, String> {
        self.index.count(tenant, &self.name, filter).await.map_err(failed("count"))
    }

    async fn collections(&self) -> Result<(), String> {
        let query = Query { search: Search::Dense(lean(0, 1.0)), filter: Filter::default(), limit: 3 };
        let missing = self.index.query(&self.tenant, &self.name, query.clone()).await;
        expect("a query of a missing collection says so", matches!(missing, Err(Error::NoCollection(_))), &missing)?;
        let spec = CollectionSpec { name: self.name.clone(), dimensions: DIMENSIONS };
        self.index.ensure(&spec).await.map_err(failed("making a collection"))?;
        self.index.ensure(&spec).await.map_err(failed("making it again"))?;
        let other = self.index.ensure(&CollectionSpec { dimensions: 9, ..spec }).await;
        expect(
            "other dimensions are refused",
            matches!(other, Err(Error::DimensionMismatch { stored: DIMENSIONS, given: 9, .. })),
            &other,
        )?;
        let empty = self.index.query(&self.tenant, &self.name, query).await.map_err(failed("querying an empty collection"))?;
        expect("an empty collection has no hits", empty.is_empty(), &empty)?;
        let wrong = self.index.upsert(&self.tenant, &self.name, vec![self.point("x", 0, "x", vec![1.0; 3])?]).await;
        expect("a vector of another length is not stored", matches!(wrong, Err(Error::DimensionMismatch { given: 3, .. })), &wrong)?;
        let wrong = self
            .index
            .query(&self.tenant, &self.name, Query { search: Search::Dense(vec![1.0; 3]), filter: Filter::default(), limit: 3 })
            .await;
        expect("a vector of another length is not searched", matches!(wrong, Err(Error::DimensionMismatch { given: 3, .. })), &wrong)?;
        self.index.ready().await.map_err(failed("ready"))
    }

    async fn round_trip(&self) -> Result<(), String> {
        let point = self.point("a/ä b.md", 7, "Line one\nline \"two\" \u{1f6b2} \\ end", lean(0, 1.0))?;
        self.upsert(&self.tenant, vec![point.clone()]).await?;
        let hits = self.query(&self.tenant, Search::Dense(lean(0, 1.0)), Filter::default(), 3).await?;
        expect("a chunk comes back as it was stored", hits.len() == 1 && hits[0].chunk == point.chunk && hits[0].id == point.id, &hits)?;
        let unknown = Uuid::from_u128(7);
        let chunks = self.index.chunks(&self.tenant, &self.name, &[unknown, point.id]).await.map_err(failed("chunks"))?;
        expect("a chunk is found by its id, and an unknown id is left out", chunks == [point.chunk.clone()], &chunks)?;
        let chunks = self.index.chunks(&self.other, &self.name, &[point.id]).await.map_err(failed("chunks"))?;
        expect("another tenant's chunk is not found by its id", chunks.is_empty(), &chunks)?;
        expect("the same direction has cosine 1", (hits[0].score - 1.0).abs() < 1e-4, &hits[0].score)?;
        let hits = self.query(&self.tenant, Search::Sparse(self.sparse.query("nothing of it")), Filter::default(), 3).await?;
        expect("words that are nowhere find nothing", hits.is_empty(), &hits)?;
        self.index.delete(&self.tenant, &self.name, &[point.id]).await.map_err(failed("delete"))
    }

    async fn tenants(&self) -> Result<(), String> {
        let point = self.point("same.md", 0, "the same words", lean(1, 1.0))?;
        self.upsert(&self.tenant, vec![point.clone()]).await?;
        self.upsert(&self.other, vec![point.clone()]).await?;
        self.index.delete(&self.other, &self.name, &[point.id]).await.map_err(failed("delete"))?;
        let (ours, theirs) = (self.count(&self.tenant, &Filter::default()).await?, self.count(&self.other, &Filter::default()).await?);
        expect("deleting one tenant's copy leaves the other's", (ours, theirs) == (1, 0), &(ours, theirs))?;
        for search in [
            Search::Dense(lean(1, 1.0)),
            Search::Sparse(self.sparse.query("same words")),
            Search::Hybrid { dense: lean(1, 1.0), sparse: self.sparse.query("same words"), candidates: 10 },
        ] {
            let hits = self.query(&self.other, search, Filter { documents: vec![point.chunk.document.clone()] }, 5).await?;
            expect("no search crosses tenants", hits.is_empty(), &hits)?;
        }
        let page = self.index.ids(&self.other, &self.name, &Filter::default(), None, 10).await.map_err(failed("ids"))?;
        expect("ids do not cross tenants", page.ids.is_empty(), &page)?;
        let theirs = self.index.missing(&self.other, &self.name, &[point.id]).await.map_err(failed("missing"))?;
        let ours = self.index.missing(&self.tenant, &self.name, &[Uuid::from_u128(7), point.id]).await.map_err(failed("missing"))?;
        expect(
            "what is missing is told, tenant by tenant",
            (&theirs[..], &ours[..]) == (&[point.id], &[Uuid::from_u128(7)]),
            &(&theirs, &ours),
        )?;
        self.index.delete(&self.tenant, &self.name, &[point.id]).await.map_err(failed("delete"))
    }

    async fn ranking(&self) -> Result<(), String> {
        let texts = ["common common rare", "common words here", "common words there", "common things", "unlike"];
        let points = texts
            .iter()
            .enumerate()
            .map(|(at, text)| self.point(&format!("d{at}"), 0, text, lean(at, 0.5 + at as f32)))
            .collect::<Result<Vec<_>, _>>()?;
        self.upsert(&self.tenant, points.clone()).await?;
        let words = self.sparse.query("rare things");
        let hits = self.query(&self.tenant, Search::Sparse(self.sparse.query("common rare")), Filter::default(), 5).await?;
        expect("a rare word outranks a common one", hits.first().is_some_and(|hit| hit.id == points[0].id) && hits.len() == 4, &hits)?;
        let (dense, candidates) = (lean(3, 2.0), 4);
        let arms = [
            self.query(&self.tenant, Search::Dense(dense.clone()), Filter::default(), candidates).await?,
            self.query(&self.tenant, Search::Sparse(words.clone()), Filter::default(), candidates).await?,
        ];
        expect("the dense arm is ranked by cosine", arms[0].first().is_some_and(|hit| hit.id == points[3].id), &arms[0])?;
        let fused = fuse(arms, 3);
        let hybrid = self.query(&self.tenant, Search::Hybrid { dense, sparse: words, candidates }, Filter::default(), 3).await?;
        let same = fused.len() == hybrid.len() && fused.iter().zip(&hybrid).all(|(a, b)| a.id == b.id && (a.score - b.score).abs() < 1e-6);
        expect("hybrid is the reciprocal rank fusion of its arms", same, &(fused, &hybrid))?;
        expect("what both arms find comes first", hybrid[0].id == points[3].id, &hybrid)?;
        let only = Filter { documents: vec![points[1].chunk.document.clone(), points[2].chunk.document.clone()] };
        let hits = self.query(&self.tenant, Search::Dense(lean(3, 2.0)), only.clone(), 5).await?;
        let found: BTreeSet<Uuid> = hits.iter().map(|hit| hit.id).collect();
        expect("a filter admits its documents only", found == BTreeSet::from([points[1].id, points[2].id]), &hits)?;
        expect("a filtered count is exact", self.count(&self.tenant, &only).await? == 2, &())
    }

    async fn replacing_and_deleting(&self) -> Result<(), String> {
        let before = self.count(&self.tenant, &Filter::default()).await?;
        let point = self.point("d0", 0, "common common rare", lean(7, 9.0))?;
        self.upsert(&self.tenant, vec![point.clone(), point.clone()]).await?;
        expect("the same id is replaced, not doubled", self.count(&self.tenant, &Filter::default()).await? == before, &before)?;
        let hits = self.query(&self.tenant, Search::Dense(lean(7, 9.0)), Filter::default(), 1).await?;
        expect("the new vector counts", hits.first().is_some_and(|hit| hit.id == point.id && hit.score > 0.99), &hits)?;
        self.index.delete(&self.tenant, &self.name, &[point.id, Uuid::from_u128(7)]).await.map_err(failed("delete"))?;
        let hits = self.query(&self.tenant, Search::Dense(lean(7, 9.0)), Filter::default(), 9).await?;
        expect("a deleted point is found no more", hits.iter().all(|hit| hit.id != point.id) && hits.len() == before - 1, &hits)
    }

    async fn many(&self) -> Result<(), String> {
        let points = (0..2_000)
            .map(|at| self.point(&format!("many/{}", at / 10), at, &format!("word{at} filler"), lean(at as usize % DIMENSIONS, 1.0)))
            .collect::<Result<Vec<_>, _>>()?;
        let wanted: BTreeSet<Uuid> = points.iter().map(|point| point.id).collect();
        let documents: Vec<DocumentId> =
            points.iter().map(|point| point.chunk.document.clone()).collect::<BTreeSet<_>>().into_iter().collect();
        self.upsert(&self.tenant, points).await?;
        self.index.settle(&self.name).await.map_err(failed("settle"))?;
        let (filter, mut seen, mut from, mut pages) = (Filter { documents }, Vec::new(), None, 0);
        loop {
            let page = self.index.ids(&self.tenant, &self.name, &filter, from, 300).await.map_err(failed("ids"))?;
            expect("a page is not longer than asked for", page.ids.len() <= 300, &page.ids.len())?;
            seen.extend(page.ids);
            from = page.next;
            pages += 1;
            if from.is_none() {
                break;
            }
        }
        let distinct: BTreeSet<Uuid> = seen.iter().copied().collect();
        expect("pages give every id once", seen.len() == 2_000 && distinct == wanted && pages >= 7, &(seen.len(), pages))?;
        let hits = self.query(&self.tenant, Search::Sparse(self.sparse.query("word1234")), Filter::default(), 5).await?;
        expect("one word of 2,000 documents is found", hits.first().is_some_and(|hit| hit.chunk.text == "word1234 filler"), &hits)
    }

    async fn aliases(&self) -> Result<(), String> {
        let alias = Collection::new("conformance-alias").map_err(|e| e.to_string())?;
        let generations = [alias.generation(1), alias.generation(2)];
        let unknown = self.index.resolve(&alias).await.map_err(failed("resolve"))?;
        expect("an alias that was never set stands for nothing", unknown.is_none(), &unknown)?;
        for (at, name) in generations.iter().enumerate() {
            self.index.ensure(&CollectionSpec { name: name.clone(), dimensions: DIMENSIONS }).await.map_err(failed("ensure"))?;
            let point = self.point(&format!("of-{at}"), 0, "text", lean(at, 1.0))?;
            self.index.upsert(&self.tenant, name, vec![point]).await.map_err(failed("upsert"))?;
        }
        for target in [&generations[0], &generations[1], &generations[0]] {
            self.index.set_alias(&alias, target).await.map_err(failed("set_alias"))?;
            let resolved = self.index.resolve(&alias).await.map_err(failed("resolve"))?;
            expect("an alias stands for its target", resolved.as_ref() == Some(target), &resolved)?;
            let query = Query { search: Search::Dense(lean(0, 1.0)), filter: Filter::default(), limit: 5 };
            let through = self.index.query(&self.tenant, &alias, query.clone()).await.map_err(failed("query"))?;
            let direct = self.index.query(&self.tenant, target, query).await.map_err(failed("query"))?;
            expect("a query through the alias is a query of the target", through == direct && through.len() == 1, &(&through, &direct))?;
        }
        let point = self.point("through-the-alias", 0, "text", lean(3, 1.0))?;
        self.index.upsert(&self.tenant, &alias, vec![point]).await.map_err(failed("upsert"))?;
        let counts = [
            self.index.count(&self.tenant, &generations[0], &Filter::default()).await.map_err(failed("count"))?,
            self.index.count(&self.tenant, &generations[1], &Filter::default()).await.map_err(failed("count"))?,
        ];
        expect("a write through the alias goes to its target", counts == [2, 1], &counts)?;
        let stored = self.index.collections().await.map_err(failed("collections"))?;
        let listed = generations.iter().all(|name| stored.contains(name)) && !stored.contains(&alias);
        expect("collections are listed, aliases are not", listed, &stored)?;
        for name in &generations {
            self.index.remove(name).await.map_err(failed("remove"))?;
        }
        Ok(())
    }
}
