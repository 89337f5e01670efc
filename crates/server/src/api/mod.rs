//! One module for each family of routes.

pub(crate) mod adapters;
pub(crate) mod aliases;
pub(crate) mod beside;
pub(crate) mod chat;
pub(crate) mod conversation;
pub(crate) mod datasets;
pub(crate) mod documents;
pub(crate) mod embeddings;
pub(crate) mod evaluations;
pub(crate) mod files;
pub(crate) mod fine_tuning;
pub(crate) mod generations;
pub(crate) mod handoffs;
pub(crate) mod health;
pub(crate) mod keys;
pub(crate) mod models;
pub(crate) mod owner;
pub(crate) mod page;
pub(crate) mod releases;
pub(crate) mod responses;
pub(crate) mod search;
pub(crate) mod telling;
pub(crate) mod traces;
pub(crate) mod uploads;
pub(crate) mod vector_stores;
pub(crate) mod wire;
