FROM rust:1.95-bookworm AS build
RUN apt-get update && apt-get install -y --no-install-recommends cmake clang libclang-dev g++ && rm -rf /var/lib/apt/lists/*
WORKDIR /source
COPY . .
RUN cargo build --release --locked

FROM debian:bookworm-slim
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates libgomp1 python3 python3-pip && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home groundtone && mkdir /data && chown groundtone /data
COPY --from=build /source/target/release/groundtone /usr/local/bin/groundtone
USER groundtone
VOLUME /data
EXPOSE 8080
ENTRYPOINT ["groundtone"]
