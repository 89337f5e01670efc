//! The tables. A step that has been released is never edited: what changes is a new step.

/// The schema, one statement each; `user_version` says how many of the steps a database has seen.
pub(crate) const STEPS: &[&[&str]] = &[
    &[
        "CREATE TABLE collections (name TEXT PRIMARY KEY, fingerprint TEXT NOT NULL, dimensions INTEGER NOT NULL, created_at INTEGER NOT NULL, completed_at INTEGER) STRICT",
        "CREATE TABLE documents (tenant TEXT NOT NULL, collection TEXT NOT NULL, id TEXT NOT NULL, source TEXT NOT NULL, content_hash TEXT NOT NULL, version TEXT,
            settings_fingerprint TEXT NOT NULL, title TEXT NOT NULL, url TEXT NOT NULL, bytes INTEGER NOT NULL, tokens INTEGER NOT NULL, run TEXT NOT NULL, indexed_at INTEGER NOT NULL,
            PRIMARY KEY (tenant, collection, id)) STRICT, WITHOUT ROWID",
        "CREATE TABLE points (tenant TEXT NOT NULL, collection TEXT NOT NULL, document TEXT NOT NULL, ordinal INTEGER NOT NULL, id BLOB NOT NULL,
            PRIMARY KEY (tenant, collection, document, ordinal)) STRICT, WITHOUT ROWID",
        "CREATE TABLE intents (tenant TEXT NOT NULL, collection TEXT NOT NULL, document TEXT NOT NULL, PRIMARY KEY (tenant, collection, document)) STRICT, WITHOUT ROWID",
        "CREATE TABLE pending_removals (tenant TEXT NOT NULL, collection TEXT NOT NULL, id BLOB NOT NULL, PRIMARY KEY (tenant, collection, id)) STRICT, WITHOUT ROWID",
        "CREATE TABLE switches (id INTEGER PRIMARY KEY, collection TEXT NOT NULL, target TEXT NOT NULL, at INTEGER NOT NULL) STRICT",
        "CREATE TABLE runs (id TEXT PRIMARY KEY, tenant TEXT NOT NULL, collection TEXT NOT NULL, source TEXT NOT NULL, started_at INTEGER NOT NULL, finished_at INTEGER, report TEXT) STRICT",
    ],
    &[
        "ALTER TABLE documents ADD COLUMN metadata TEXT NOT NULL DEFAULT '{}'",
        "ALTER TABLE documents ADD COLUMN flags TEXT NOT NULL DEFAULT '[]'",
        "CREATE TABLE quarantine (tenant TEXT NOT NULL, collection TEXT NOT NULL, source TEXT NOT NULL, name TEXT NOT NULL, place TEXT NOT NULL, document TEXT, reason TEXT NOT NULL,
            run TEXT NOT NULL, since INTEGER NOT NULL, last INTEGER NOT NULL, PRIMARY KEY (tenant, collection, source, name)) STRICT, WITHOUT ROWID",
    ],
    &[
        "CREATE TABLE files (tenant TEXT NOT NULL, id TEXT NOT NULL, filename TEXT NOT NULL, purpose TEXT NOT NULL, bytes INTEGER NOT NULL, sha256 TEXT NOT NULL, created_at INTEGER NOT NULL,
            PRIMARY KEY (tenant, id)) STRICT, WITHOUT ROWID",
        "CREATE TABLE vector_stores (tenant TEXT NOT NULL, id TEXT NOT NULL, name TEXT NOT NULL, metadata TEXT NOT NULL, created_at INTEGER NOT NULL, last_active_at INTEGER NOT NULL,
            PRIMARY KEY (tenant, id)) STRICT, WITHOUT ROWID",
        "CREATE TABLE vector_store_files (tenant TEXT NOT NULL, store TEXT NOT NULL, file TEXT NOT NULL, document TEXT NOT NULL, status TEXT NOT NULL, error_code TEXT, error TEXT,
            attributes TEXT NOT NULL, bytes INTEGER NOT NULL, created_at INTEGER NOT NULL, PRIMARY KEY (tenant, store, file)) STRICT, WITHOUT ROWID",
    ],
    &["CREATE TABLE evaluations (tenant TEXT NOT NULL, id TEXT NOT NULL, name TEXT NOT NULL, set_sha256 TEXT NOT NULL, cases INTEGER NOT NULL, decision TEXT NOT NULL,
            reason TEXT NOT NULL, arms TEXT NOT NULL, report TEXT NOT NULL, created_at INTEGER NOT NULL, PRIMARY KEY (tenant, id)) STRICT, WITHOUT ROWID"],
    &[
        "CREATE TABLE releases (tenant TEXT NOT NULL, id TEXT NOT NULL, assistant TEXT NOT NULL, variant TEXT NOT NULL, model TEXT NOT NULL, prompt_fingerprint TEXT NOT NULL,
            generation TEXT NOT NULL, evaluation TEXT, forced TEXT, created_at INTEGER NOT NULL, actor TEXT NOT NULL, reason TEXT NOT NULL, PRIMARY KEY (tenant, id)) STRICT, WITHOUT ROWID",
        "CREATE TABLE release_events (tenant TEXT NOT NULL, assistant TEXT NOT NULL, number INTEGER NOT NULL, action TEXT NOT NULL, release TEXT, percent INTEGER, at INTEGER NOT NULL,
            actor TEXT NOT NULL, reason TEXT NOT NULL, PRIMARY KEY (tenant, assistant, number)) STRICT, WITHOUT ROWID",
    ],
];
