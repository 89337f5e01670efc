use crate::{Endpoint, Error};

/// Posts JSON to an endpoint's own address with these headers. Anything but 2xx is an error; the answer's body is not read.
pub async fn post_webhook(endpoint: &Endpoint, headers: &[(&'static str, &str)], body: String) -> Result<(), Error> {
    let mut request = endpoint.request(reqwest::Method::POST, "").header("content-type", "application/json").body(body);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    endpoint.send(request).await.map(drop)
}
