//! The promises of [`VectorIndex`], as a suite that every index passes: in memory, embedded, and over the wire.

use crate::{CollectionSpec, Error, Filter, Point, Query, Search, SparseEmbedder, VectorIndex};
use groundtone_types::{Chunk, Collection, DocumentId, Snippet, Span, Tenant, cosine};
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
    suite.metadata().await?;
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
            metadata: Default::default(),
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
        let mut point = self.point("a/ä b.md", 7, "Line one\nline \"two\" \u{1f6b2} \\ end", lean(0, 1.0))?;
        let metadata = r#"{"brand":"Größe","open":true,"rank":-3,"share":0.25,"tags":["a","b"]}"#;
        point.chunk.metadata = serde_json::from_str(metadata).map_err(|error| error.to_string())?;
        point.id = point.chunk.point_id();
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
        for search in [Search::Dense(lean(1, 1.0)), Search::Sparse(self.sparse.query("same words"))] {
            let hits = self.query(&self.other, search, Filter::document(point.chunk.document.clone()), 5).await?;
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
        let hits = self.query(&self.tenant, Search::Sparse(self.sparse.query("common rare")), Filter::default(), 5).await?;
        expect("a rare word outranks a common one", hits.first().is_some_and(|hit| hit.id == points[0].id) && hits.len() == 4, &hits)?;
        let hits = self.query(&self.tenant, Search::Dense(lean(3, 2.0)), Filter::default(), 4).await?;
        expect("the dense arm is ranked by cosine", hits.first().is_some_and(|hit| hit.id == points[3].id), &hits)?;
        let ids = [points[3].id, Uuid::from_u128(7), points[0].id];
        let vectors = self.index.vectors(&self.tenant, &self.name, &ids).await.map_err(failed("vectors"))?;
        let same = |found: &Option<Vec<f32>>, given: &[f32]| found.as_ref().is_some_and(|found| cosine(found, given) > 0.9999);
        let right =
            vectors.len() == 3 && same(&vectors[0], &points[3].dense) && vectors[1].is_none() && same(&vectors[2], &points[0].dense);
        expect("vectors come back in the order asked for", right, &vectors)?;
        let theirs = self.index.vectors(&self.other, &self.name, &ids).await.map_err(failed("vectors"))?;
        expect("vectors do not cross tenants", theirs.iter().all(Option::is_none), &theirs)?;
        let documents = vec![points[1].chunk.document.clone(), points[2].chunk.document.clone()];
        let only = Filter { documents, ..Filter::default() };
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

    /// Every kind of condition against every kind of value, with [`Filter::admits`] as the judge.
    async fn metadata(&self) -> Result<(), String> {
        let documents = [
            r#"{"lang":"de","tags":["tea","kettle"],"price":12.5,"rank":3,"open":true,"date":"2026-03-01"}"#,
            r#"{"lang":"en","tags":["tea"],"price":3,"rank":-3,"open":false,"date":"2026-03-01T10:00:00+02:00"}"#,
            r#"{"lang":"Größe \"x\"","tags":[],"price":1e9,"rank":0,"date":"2025-12-31T23:59:59.5Z"}"#,
            r#"{"lang":["de","fr"],"price":"3","rank":3.0,"open":"true","date":"no date","a-b_C":1}"#,
            "{}",
        ];
        let mut points = Vec::new();
        for (at, metadata) in documents.iter().enumerate() {
            let mut point = self.point(&format!("meta/{at}"), 0, "described words", lean(at, 1.0))?;
            point.chunk.metadata = serde_json::from_str(metadata).map_err(|e| e.to_string())?;
            point.id = point.chunk.point_id();
            points.push(point);
        }
        self.upsert(&self.tenant, points.clone()).await?;
        let all = Filter { documents: points.iter().map(|point| point.chunk.document.clone()).collect(), ..Filter::default() };
        for wanted in [
            r#"{"lang":"de"}"#,
            r#"{"lang":"Größe \"x\""}"#,
            r#"{"lang":["fr","en"]}"#,
            r#"{"lang":"missing"}"#,
            r#"{"tags":"kettle"}"#,
            r#"{"tags":["coffee","tea"],"open":false}"#,
            r#"{"open":true}"#,
            r#"{"open":[true,false]}"#,
            r#"{"rank":3}"#,
            r#"{"rank":[0,-3.0]}"#,
            r#"{"rank":{"from":-3,"to":0}}"#,
            r#"{"price":{"from":12.5}}"#,
            r#"{"price":{"to":3}}"#,
            r#"{"price":["3",12.5]}"#,
            r#"{"date":{"from":"2026-03-01","to":"2026-03-01T08:00:00Z"}}"#,
            r#"{"date":{"to":"2026-01-01"}}"#,
            r#"{"date":{"from":"2026-03-01T08:00:01Z"}}"#,
            r#"{"a-b_C":1}"#,
            r#"{"missing":{"from":0}}"#,
        ] {
            let given = serde_json::from_str(wanted).map_err(|e| e.to_string())?;
            let filter = Filter { metadata: Filter::of_metadata(&given).map_err(|e| e.to_string())?.metadata, ..all.clone() };
            let expected: BTreeSet<Uuid> = points.iter().filter(|point| filter.admits(&point.chunk)).map(|point| point.id).collect();
            for search in [Search::Dense(lean(0, 1.0)), Search::Sparse(self.sparse.query("described words"))] {
                let hits = self.query(&self.tenant, search, filter.clone(), 9).await?;
                let found: BTreeSet<Uuid> = hits.iter().map(|hit| hit.id).collect();
                expect(&format!("a filter admits what it says: {wanted}"), found == expected, &hits)?;
            }
            let counts = [self.count(&self.tenant, &filter).await?, self.count(&self.other, &filter).await?];
            expect(&format!("a filtered count is exact: {wanted}"), counts == [expected.len(), 0], &counts)?;
        }
        let ids: Vec<Uuid> = points.iter().map(|point| point.id).collect();
        self.index.delete(&self.tenant, &self.name, &ids).await.map_err(failed("delete"))
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
        let (filter, mut seen, mut from, mut pages) = (Filter { documents, ..Filter::default() }, Vec::new(), None, 0);
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

/// What [`isolation`] did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Isolation {
    /// Calls made.
    pub cases: usize,
    /// Chunks, ids and vectors that came back, each of them checked.
    pub returned: usize,
}

/// Random filters, searches and tenants: whatever the filter says, nothing of another tenant comes back, and all of one's own that it admits is counted.
///
/// `Err` is a leak or a wrong count. The cases depend on `seed` only. Other tenants' documents have the same names, words, keys and partly the same content, and their
/// metadata names the asking tenant.
pub async fn isolation(index: &dyn VectorIndex, sparse: &dyn SparseEmbedder, cases: usize, seed: u64) -> Result<Isolation, String> {
    let name = Collection::new("isolation").map_err(|e| e.to_string())?;
    index.remove(&name).await.map_err(failed("remove"))?;
    index.ensure(&CollectionSpec { name: name.clone(), dimensions: DIMENSIONS }).await.map_err(failed("ensure"))?;
    let tenants = ["a", "b", "c", "default"].map(Tenant::new).into_iter().collect::<Result<Vec<_>, _>>().map_err(|e| e.to_string())?;
    let mut random = Random(seed);
    let suite = Suite { index, sparse, name: name.clone(), tenant: tenants[0].clone(), other: tenants[1].clone() };
    let mut stored: Vec<(usize, Point)> = Vec::new();
    for (at, tenant) in tenants.iter().enumerate() {
        let mut points = Vec::new();
        for number in 0..24u32 {
            // Every third chunk is the same for everybody.
            let owner = if number % 3 == 0 { "shared" } else { tenant.as_str() };
            let mut point = suite.point(
                &format!("d{}", number / 4),
                number,
                &format!("words of {owner} number{number}"),
                lean(random.below(8), 2.0),
            )?;
            let [someone, lang, tag] = [tenants[random.below(4)].as_str(), ["de", "en"][random.below(2)], ["a", "b", "c"][random.below(3)]];
            let metadata = format!(
                r#"{{"tenant":"{someone}","owner":"{owner}","lang":"{lang}","tags":["{tag}","x"],"rank":{},"date":"2026-01-{:02}"}}"#,
                random.below(9),
                1 + random.below(28)
            );
            point.chunk.metadata = serde_json::from_str(&metadata).map_err(|e| e.to_string())?;
            if owner == "shared" {
                point.chunk.metadata = serde_json::from_str(r#"{"owner":"shared","rank":4}"#).map_err(|e| e.to_string())?;
            }
            point.id = point.chunk.point_id();
            points.push(point);
        }
        index.upsert(tenant, &name, points.clone()).await.map_err(failed("upsert"))?;
        stored.extend(points.into_iter().map(|point| (at, point)));
    }
    let mut done = Isolation::default();
    for _ in 0..cases {
        let asking = random.below(tenants.len());
        let filter = random.filter()?;
        let own: Vec<&Point> = stored.iter().filter(|(owner, _)| *owner == asking).map(|(_, point)| point).collect();
        let admitted: BTreeSet<Uuid> = own.iter().filter(|point| filter.admits(&point.chunk)).map(|point| point.id).collect();
        done.cases += 1;
        done.returned += isolated(&suite, &tenants[asking], &filter, &own, &admitted, &stored, &mut random).await?;
    }
    index.remove(&name).await.map_err(failed("remove"))?;
    Ok(done)
}

/// One case of [`isolation`]; how many things came back.
async fn isolated(
    suite: &Suite<'_>,
    tenant: &Tenant,
    filter: &Filter,
    own: &[&Point],
    admitted: &BTreeSet<Uuid>,
    stored: &[(usize, Point)],
    random: &mut Random,
) -> Result<usize, String> {
    let foreign: Vec<Uuid> = stored.iter().map(|(_, point)| point.id).collect();
    let is_own = |id: &Uuid| own.iter().any(|point| point.id == *id);
    match random.below(6) {
        0 | 1 => {
            let words = ["words", "words of a", "shared number3", "b c default"][random.below(4)];
            let dense = random.below(2) == 0;
            let search = if dense { Search::Dense(lean(random.below(8), 1.0)) } else { Search::Sparse(suite.sparse.query(words)) };
            let hits = suite.query(tenant, search, filter.clone(), 100).await?;
            let mine = |hit: &Snippet| admitted.contains(&hit.id) && own.iter().any(|point| point.id == hit.id && point.chunk == hit.chunk);
            expect("no search crosses tenants", hits.iter().all(mine), &(tenant, filter, &hits))?;
            expect("a dense search finds all that is admitted", !dense || hits.len() == admitted.len(), &(tenant, filter, &hits))?;
            Ok(hits.len())
        }
        2 => {
            let count = suite.count(tenant, filter).await?;
            expect("a count does not cross tenants", count == admitted.len(), &(tenant, filter, count))?;
            Ok(count)
        }
        3 => {
            let page = suite.index.ids(tenant, &suite.name, filter, None, 100).await.map_err(failed("ids"))?;
            let found: BTreeSet<Uuid> = page.ids.iter().copied().collect();
            expect("ids do not cross tenants", found == *admitted, &(tenant, filter, &page))?;
            Ok(found.len())
        }
        4 => {
            let vectors = suite.index.vectors(tenant, &suite.name, &foreign).await.map_err(failed("vectors"))?;
            let right = foreign.iter().zip(&vectors).all(|(id, vector)| vector.is_some() == is_own(id));
            expect("vectors do not cross tenants", right, &tenant)?;
            Ok(vectors.iter().flatten().count())
        }
        _ => {
            let missing = suite.index.missing(tenant, &suite.name, &foreign).await.map_err(failed("missing"))?;
            expect("what others have is missing", missing.iter().all(|id| !is_own(id)), &tenant)?;
            Ok(foreign.len() - missing.len())
        }
    }
}

/// SplitMix64 (Steele et al., OOPSLA 2014): enough to draw cases.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % limit.max(1) as u64) as usize
    }

    /// A filter of up to two documents and up to three conditions, some of which name a tenant.
    fn filter(&mut self) -> Result<Filter, String> {
        let mut given = serde_json::Map::new();
        for _ in 0..self.below(4) {
            let tenant = ["a", "b", "c", "default", "shared"][self.below(5)];
            let (rank, day) = (self.below(9), self.below(28) + 1);
            let (key, value) = match self.below(8) {
                0 => ("tenant", serde_json::json!(tenant)),
                1 => ("owner", serde_json::json!([tenant, "shared"])),
                2 => ("owner", serde_json::json!(tenant)),
                3 => ("lang", serde_json::json!(["de", "en", rank])),
                4 => ("tags", serde_json::json!(["a", "b", "x"][self.below(3)])),
                5 => ("rank", serde_json::json!({"from": rank})),
                6 => ("rank", serde_json::json!([rank, 4])),
                _ => ("date", serde_json::json!({"to": format!("2026-01-{day:02}")})),
            };
            given.insert(key.to_owned(), value);
        }
        let mut filter = Filter::of_metadata(&given).map_err(|e| e.to_string())?;
        for _ in 0..self.below(3) {
            filter.documents.push(DocumentId::new(format!("d{}", self.below(7))).map_err(|e| e.to_string())?);
        }
        Ok(filter)
    }
}
