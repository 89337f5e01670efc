//! Qdrant's gRPC services on a loopback port, as far as our client uses them, with Qdrant Edge as the store.

mod convert;

use ::qdrant_client::qdrant::collections_server::{Collections, CollectionsServer};
use ::qdrant_client::qdrant::points_server::{Points, PointsServer};
use ::qdrant_client::qdrant::*;
use qdrant_edge::{
    CountRequest, Distance as EdgeDistance, EdgeConfig, EdgeShard, EdgeSparseVectorParams, EdgeVectorParams, Modifier as EdgeModifier,
    PointInsertOperations, PointOperations, ScrollRequest, UpdateOperation, WithPayloadInterface, WithVector,
};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, async_trait};

/// A running server; its data goes with it.
pub struct Server {
    pub url: String,
    pub address: SocketAddr,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Server {
    pub async fn stop(self) {
        self.stop.send(()).unwrap();
        self.task.abort();
        // An aborted task reports that it was aborted; what matters is that its port is free.
        self.task.await.unwrap_or_default();
    }
}

pub async fn start(delay: Duration) -> Server {
    start_at("127.0.0.1:0".parse().unwrap(), delay).await
}

/// `delay` comes before every answer.
pub async fn start_at(address: SocketAddr, delay: Duration) -> Server {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind(address).unwrap();
    let listener = socket.listen(16).unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let store = Store { folder: Arc::new(tempfile::tempdir().unwrap()), shards: Arc::default(), aliases: Arc::default(), delay };
    let serving = tonic::transport::Server::builder()
        .add_service(PointsServer::new(store.clone()))
        .add_service(CollectionsServer::new(store))
        .serve_with_incoming_shutdown(TcpListenerStream::new(listener), async {
            stopped.await.unwrap_or_default();
        });
    let task = tokio::spawn(async { serving.await.unwrap() });
    Server { url: format!("http://{address}"), address, stop, task }
}

#[derive(Clone)]
struct Store {
    folder: Arc<tempfile::TempDir>,
    shards: Arc<Mutex<HashMap<String, Arc<EdgeShard>>>>,
    aliases: Arc<Mutex<HashMap<String, String>>>,
    delay: Duration,
}

impl Store {
    async fn shard(&self, name: &str) -> Result<Arc<EdgeShard>, Status> {
        tokio::time::sleep(self.delay).await;
        let name = self.aliases.lock().unwrap().get(name).cloned().unwrap_or_else(|| name.to_owned());
        self.shards.lock().unwrap().get(&name).cloned().ok_or_else(|| Status::not_found(format!("Collection `{name}` doesn't exist!")))
    }
}

fn done() -> Response<PointsOperationResponse> {
    Response::new(PointsOperationResponse {
        result: Some(UpdateResult { status: UpdateStatus::Completed.into(), ..UpdateResult::default() }),
        ..PointsOperationResponse::default()
    })
}

fn internal(error: impl std::fmt::Display) -> Status {
    Status::internal(error.to_string())
}

macro_rules! unused {
    ($($name:ident($request:ty) -> $response:ty;)*) => {
        $(fn $name<'life0, 'async_trait>(&'life0 self, _: Request<$request>) -> std::pin::Pin<Box<dyn Future<Output = Result<Response<$response>, Status>> + Send + 'async_trait>>
        where 'life0: 'async_trait, Self: 'async_trait {
            Box::pin(async { Err(Status::unimplemented(concat!(stringify!($name), " is not used by our client"))) })
        })*
    };
}

#[async_trait]
impl Points for Store {
    async fn upsert(&self, request: Request<UpsertPoints>) -> Result<Response<PointsOperationResponse>, Status> {
        let request = request.into_inner();
        let shard = self.shard(&request.collection_name).await?;
        let points = request.points.into_iter().map(convert::point).collect();
        shard
            .update(UpdateOperation::PointOperation(PointOperations::UpsertPoints(PointInsertOperations::PointsList(points))))
            .map_err(internal)?;
        Ok(done())
    }

    async fn delete(&self, request: Request<DeletePoints>) -> Result<Response<PointsOperationResponse>, Status> {
        let request = request.into_inner();
        let shard = self.shard(&request.collection_name).await?;
        let Some(points_selector::PointsSelectorOneOf::Points(list)) = request.points.and_then(|points| points.points_selector_one_of)
        else {
            return Err(Status::unimplemented("deleting by filter"));
        };
        let ids = list.ids.iter().map(convert::id).collect();
        shard.update(UpdateOperation::PointOperation(PointOperations::DeletePoints { ids })).map_err(internal)?;
        Ok(done())
    }

    async fn create_field_index(&self, request: Request<CreateFieldIndexCollection>) -> Result<Response<PointsOperationResponse>, Status> {
        self.shard(&request.into_inner().collection_name).await?;
        Ok(done())
    }

    async fn scroll(&self, request: Request<ScrollPoints>) -> Result<Response<ScrollResponse>, Status> {
        let request = request.into_inner();
        let shard = self.shard(&request.collection_name).await?;
        let scroll = ScrollRequest {
            offset: request.offset.as_ref().map(convert::id),
            limit: request.limit.map(|limit| limit as usize),
            filter: request.filter.map(convert::filter),
            with_payload: Some(WithPayloadInterface::Bool(true)),
            with_vector: WithVector::Bool(false),
            order_by: None,
        };
        let (records, next) = shard.scroll(scroll).map_err(internal)?;
        let result = records.into_iter().map(|record| RetrievedPoint {
            id: Some(convert::wire_id(record.id)),
            payload: convert::wire_payload(record.payload),
            ..RetrievedPoint::default()
        });
        Ok(Response::new(ScrollResponse {
            next_page_offset: next.map(convert::wire_id),
            result: result.collect(),
            ..ScrollResponse::default()
        }))
    }

    async fn get(&self, request: Request<GetPoints>) -> Result<Response<GetResponse>, Status> {
        let request = request.into_inner();
        let shard = self.shard(&request.collection_name).await?;
        let ids: Vec<_> = request.ids.iter().map(convert::id).collect();
        let with_vector = match request.with_vectors.and_then(|selector| selector.selector_options) {
            Some(with_vectors_selector::SelectorOptions::Include(only)) => WithVector::Selector(only.names),
            _ => WithVector::Bool(false),
        };
        let records = shard.retrieve(&ids, Some(WithPayloadInterface::Bool(true)), Some(with_vector)).map_err(internal)?;
        let result = records.into_iter().map(|record| RetrievedPoint {
            id: Some(convert::wire_id(record.id)),
            vectors: record.vector.map(convert::wire_vectors),
            payload: convert::wire_payload(record.payload),
            ..RetrievedPoint::default()
        });
        Ok(Response::new(GetResponse { result: result.collect(), ..GetResponse::default() }))
    }

    async fn count(&self, request: Request<CountPoints>) -> Result<Response<CountResponse>, Status> {
        let request = request.into_inner();
        let shard = self.shard(&request.collection_name).await?;
        let count = shard.count(CountRequest { filter: request.filter.map(convert::filter), exact: true }).map_err(internal)?;
        Ok(Response::new(CountResponse { result: Some(CountResult { count: count as u64 }), ..CountResponse::default() }))
    }

    async fn query(&self, request: Request<QueryPoints>) -> Result<Response<QueryResponse>, Status> {
        let request = request.into_inner();
        let shard = self.shard(&request.collection_name).await?;
        let found = shard.query(convert::query(request)).map_err(internal)?;
        let result = found.into_iter().map(|point| ScoredPoint {
            id: Some(convert::wire_id(point.id)),
            payload: convert::wire_payload(point.payload),
            score: point.score,
            ..ScoredPoint::default()
        });
        Ok(Response::new(QueryResponse { result: result.collect(), ..QueryResponse::default() }))
    }

    unused! {
        update_vectors(UpdatePointVectors) -> PointsOperationResponse;
        delete_vectors(DeletePointVectors) -> PointsOperationResponse;
        set_payload(SetPayloadPoints) -> PointsOperationResponse;
        overwrite_payload(SetPayloadPoints) -> PointsOperationResponse;
        delete_payload(DeletePayloadPoints) -> PointsOperationResponse;
        clear_payload(ClearPayloadPoints) -> PointsOperationResponse;
        delete_field_index(DeleteFieldIndexCollection) -> PointsOperationResponse;
        create_vector_name(CreateVectorNameRequest) -> PointsOperationResponse;
        delete_vector_name(DeleteVectorNameRequest) -> PointsOperationResponse;
        search(SearchPoints) -> SearchResponse;
        search_batch(SearchBatchPoints) -> SearchBatchResponse;
        search_groups(SearchPointGroups) -> SearchGroupsResponse;
        recommend(RecommendPoints) -> RecommendResponse;
        recommend_batch(RecommendBatchPoints) -> RecommendBatchResponse;
        recommend_groups(RecommendPointGroups) -> RecommendGroupsResponse;
        discover(DiscoverPoints) -> DiscoverResponse;
        discover_batch(DiscoverBatchPoints) -> DiscoverBatchResponse;
        update_batch(UpdateBatchPoints) -> UpdateBatchResponse;
        query_batch(QueryBatchPoints) -> QueryBatchResponse;
        query_groups(QueryPointGroups) -> QueryGroupsResponse;
        facet(FacetCounts) -> FacetResponse;
        search_matrix_pairs(SearchMatrixPoints) -> SearchMatrixPairsResponse;
        search_matrix_offsets(SearchMatrixPoints) -> SearchMatrixOffsetsResponse;
    }
}

#[async_trait]
impl Collections for Store {
    async fn get(&self, request: Request<GetCollectionInfoRequest>) -> Result<Response<GetCollectionInfoResponse>, Status> {
        let shard = self.shard(&request.into_inner().collection_name).await?;
        let mut map = VectorParamsMap::default();
        for (name, vector) in &shard.config().vectors {
            map.map.insert(name.to_string(), VectorParams { size: vector.size as u64, ..VectorParams::default() });
        }
        let vectors_config = Some(VectorsConfig { config: Some(vectors_config::Config::ParamsMap(map)) });
        let config = Some(CollectionConfig {
            params: Some(CollectionParams { vectors_config, ..CollectionParams::default() }),
            ..CollectionConfig::default()
        });
        Ok(Response::new(GetCollectionInfoResponse {
            result: Some(CollectionInfo { config, ..CollectionInfo::default() }),
            ..GetCollectionInfoResponse::default()
        }))
    }

    async fn list(&self, _: Request<ListCollectionsRequest>) -> Result<Response<ListCollectionsResponse>, Status> {
        tokio::time::sleep(self.delay).await;
        let collections = self.shards.lock().unwrap().keys().map(|name| CollectionDescription { name: name.clone() }).collect();
        Ok(Response::new(ListCollectionsResponse { collections, ..ListCollectionsResponse::default() }))
    }

    async fn create(&self, request: Request<CreateCollection>) -> Result<Response<CollectionOperationResponse>, Status> {
        let request = request.into_inner();
        let Some(vectors_config::Config::ParamsMap(vectors)) = request.vectors_config.and_then(|vectors| vectors.config) else {
            return Err(Status::invalid_argument("named vectors are expected"));
        };
        let mut config = EdgeConfig::builder();
        for (name, vector) in vectors.map {
            config = config.vector(name, EdgeVectorParams::builder(vector.size as usize, EdgeDistance::Cosine).build());
        }
        for (name, vector) in request.sparse_vectors_config.unwrap_or_default().map {
            assert_eq!(vector.modifier(), Modifier::Idf);
            config = config.sparse_vector(name, EdgeSparseVectorParams::builder().modifier(EdgeModifier::Idf).build());
        }
        let folder = self.folder.path().join(&request.collection_name);
        std::fs::create_dir(&folder).map_err(internal)?;
        let shard = EdgeShard::new(&folder, config.build()).map_err(internal)?;
        self.shards.lock().unwrap().insert(request.collection_name, Arc::new(shard));
        Ok(Response::new(CollectionOperationResponse { result: true, time: 0.0 }))
    }

    async fn delete(&self, request: Request<DeleteCollection>) -> Result<Response<CollectionOperationResponse>, Status> {
        let name = request.into_inner().collection_name;
        drop(self.shards.lock().unwrap().remove(&name));
        std::fs::remove_dir_all(self.folder.path().join(&name)).map_err(internal)?;
        Ok(Response::new(CollectionOperationResponse { result: true, time: 0.0 }))
    }

    async fn update_aliases(&self, request: Request<ChangeAliases>) -> Result<Response<CollectionOperationResponse>, Status> {
        for action in request.into_inner().actions {
            let Some(alias_operations::Action::CreateAlias(create)) = action.action else {
                return Err(Status::unimplemented("only making aliases"));
            };
            self.shard(&create.collection_name).await?;
            self.aliases.lock().unwrap().insert(create.alias_name, create.collection_name);
        }
        Ok(Response::new(CollectionOperationResponse { result: true, time: 0.0 }))
    }

    async fn list_aliases(&self, _: Request<ListAliasesRequest>) -> Result<Response<ListAliasesResponse>, Status> {
        let aliases = self.aliases.lock().unwrap().clone().into_iter();
        let aliases = aliases.map(|(alias_name, collection_name)| AliasDescription { alias_name, collection_name }).collect();
        Ok(Response::new(ListAliasesResponse { aliases, time: 0.0 }))
    }

    async fn collection_exists(&self, request: Request<CollectionExistsRequest>) -> Result<Response<CollectionExistsResponse>, Status> {
        let exists = self.shards.lock().unwrap().contains_key(&request.into_inner().collection_name);
        Ok(Response::new(CollectionExistsResponse { result: Some(CollectionExists { exists }), time: 0.0 }))
    }

    unused! {
        update(UpdateCollection) -> CollectionOperationResponse;
        list_collection_aliases(ListCollectionAliasesRequest) -> ListAliasesResponse;
        collection_cluster_info(CollectionClusterInfoRequest) -> CollectionClusterInfoResponse;
        update_collection_cluster_setup(UpdateCollectionClusterSetupRequest) -> UpdateCollectionClusterSetupResponse;
        create_shard_key(CreateShardKeyRequest) -> CreateShardKeyResponse;
        delete_shard_key(DeleteShardKeyRequest) -> DeleteShardKeyResponse;
        list_shard_keys(ListShardKeysRequest) -> ListShardKeysResponse;
    }
}
