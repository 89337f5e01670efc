use crate::Global;
use crate::assemble::{data_directory, now, running_server, settings};
use crate::commands::when;
use crate::output::{hint, json, line};
use groundtone_catalog::{AuditRecord, Catalog, KeyLimits, KeyRecord, Used};
use groundtone_config::Config;
use groundtone_provider::{Endpoint, delete_json, get_json, post_json};
use groundtone_server::{AuditList, CreatedKey, KeyList, ListedKey, NewKey, make_key};
use groundtone_types::{Scope, Tenant};
use serde_json::json as value;

/// Flags of `groundtone keys`.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(clap::Subcommand)]
enum Action {
    /// Make a key and show it, once
    Create(CreateArgs),
    /// Every key: what it may do, and what it has used today
    List,
    /// End a key: the next request with it is refused
    Revoke {
        /// Its id, the first part of the key behind `gt-`
        id: String,
    },
}

#[derive(clap::Args)]
struct CreateArgs {
    /// What people call it
    #[arg(long)]
    name: String,
    /// What it may be used for: chat, ingest, tune, metrics, admin
    #[arg(long = "scope", required = true, value_delimiter = ',')]
    scopes: Vec<Scope>,
    /// Whose data it reaches
    #[arg(long)]
    tenant: Option<Tenant>,
    /// Days until it ends
    #[arg(long, value_name = "DAYS")]
    expires_in: Option<u32>,
    /// Requests a minute
    #[arg(long)]
    requests_per_minute: Option<u64>,
    /// Requests a day (UTC)
    #[arg(long)]
    requests_per_day: Option<u64>,
    /// Tokens a minute, read and written
    #[arg(long)]
    tokens_per_minute: Option<u64>,
    /// Tokens a day
    #[arg(long)]
    tokens_per_day: Option<u64>,
    /// Money a minute, in the currency of limits.prices
    #[arg(long)]
    money_per_minute: Option<f64>,
    /// Money a day
    #[arg(long)]
    money_per_day: Option<f64>,
}

impl CreateArgs {
    fn into_key(self) -> NewKey {
        NewKey {
            name: self.name,
            scopes: self.scopes,
            tenant: self.tenant,
            expires_at: self.expires_in.map(|days| now() + i64::from(days) * 86_400),
            limits: KeyLimits {
                requests_per_minute: self.requests_per_minute,
                requests_per_day: self.requests_per_day,
                tokens_per_minute: self.tokens_per_minute,
                tokens_per_day: self.tokens_per_day,
                money_per_minute: self.money_per_minute,
                money_per_day: self.money_per_day,
            },
        }
    }
}

pub(crate) async fn run(global: &Global, args: Args) -> anyhow::Result<()> {
    let config = settings(global, &[])?;
    match running_server(&config)? {
        Some(server) => through_server(&server.endpoint, args.action, global.json).await,
        None => here(&config, args.action, global.json).await,
    }
}

async fn through_server(endpoint: &Endpoint, action: Action, as_json: bool) -> anyhow::Result<()> {
    let explain =
        |error: groundtone_provider::Error| hint(error, "the server's own data directory has its key: name the same one with --data");
    match action {
        Action::Create(new) => show_new(&post_json(endpoint, "/groundtone/keys", &new.into_key()).await.map_err(explain)?, as_json),
        Action::List => show(&get_json(endpoint, "/groundtone/keys").await.map_err(explain)?, as_json),
        Action::Revoke { id } => say_revoked(&delete_json(endpoint, &format!("/groundtone/keys/{id}")).await.map_err(explain)?, as_json),
    }
}

/// In the data directory itself: who can open it owns it, and needs no key.
async fn here(config: &Config, action: Action, as_json: bool) -> anyhow::Result<()> {
    let directory = data_directory(config, "groundtone keys")?;
    let catalog = Catalog::open(&directory).await?;
    let now = now();
    let done = match action {
        Action::Create(new) => {
            let new = new.into_key();
            new.check(now).map_err(|(field, reason)| hint(reason, format!("see --{}", field.trim_end_matches('s').replace('_', "-"))))?;
            let (created, hash) = make_key(new, &Tenant::default(), now)?;
            catalog.put_key(&created.record, &hash.into()).await?;
            audit(&catalog, &created.record, "groundtone keys create", now).await?;
            show_new(&created, as_json)
        }
        Action::List => {
            let used = catalog.usage_of_day(now.div_euclid(86_400)).await?;
            let today = |id: &str| used.iter().find(|(key, _)| key == id).map(|(_, used)| *used).unwrap_or_default();
            let listed = |(record, _): (KeyRecord, _)| ListedKey { used_today: today(&record.id), record };
            show(&KeyList { keys: catalog.every_key().await?.into_iter().map(listed).collect() }, as_json)
        }
        Action::Revoke { id } => {
            let known = catalog.every_key().await?.into_iter().find(|(record, _)| record.id == id);
            let unknown = || hint(format!("there is no key `{id}`"), "`groundtone keys list` shows them");
            let (record, _) = known.ok_or_else(unknown)?;
            let ended = catalog.revoke_key(&record.tenant, &id, now).await?.ok_or_else(unknown)?;
            audit(&catalog, &ended, "groundtone keys revoke", now).await?;
            say_revoked(&ended, as_json)
        }
    };
    catalog.close().await;
    done
}

async fn audit(catalog: &Catalog, key: &KeyRecord, action: &str, now: i64) -> anyhow::Result<()> {
    let entry = AuditRecord {
        id: uuid::Uuid::now_v7().to_string(),
        at: now,
        tenant: key.tenant.clone(),
        key: None,
        action: format!("{action} {}", key.id),
        origin: "command line".to_owned(),
        request_id: None,
        status: Some(200),
    };
    Ok(catalog.audit(&entry).await?)
}

fn show_new(created: &CreatedKey, as_json: bool) -> anyhow::Result<()> {
    if as_json {
        return json(created);
    }
    line(&created.key)?;
    crate::output::say("keep it now: it is shown this once, and only its hash is kept");
    Ok(())
}

fn say_revoked(record: &KeyRecord, as_json: bool) -> anyhow::Result<()> {
    if as_json { json(record) } else { line(format!("{} ({}) has ended", record.id, record.name)) }
}

fn show(list: &KeyList, as_json: bool) -> anyhow::Result<()> {
    if as_json {
        return json(list);
    }
    if list.keys.is_empty() {
        return line("no keys; the server answers on this machine only");
    }
    for ListedKey { record, used_today } in &list.keys {
        let state = match (record.revoked_at, record.expires_at) {
            (Some(at), _) => format!("ended {}", when(at)),
            (None, Some(at)) if at <= now() => format!("expired {}", when(at)),
            (None, Some(at)) => format!("until {}", when(at)),
            (None, None) => "for good".to_owned(),
        };
        let scopes: Vec<&str> = record.scopes.iter().map(|scope| scope.as_str()).collect();
        line(format!("{}  {}  {} ({}), {state}; {}", record.id, record.tenant, record.name, scopes.join(", "), used(used_today)))?;
    }
    Ok(())
}

fn used(used: &Used) -> String {
    format!("today {} requests, {} tokens, {:.4} money", used.requests, used.tokens, used.micros as f64 / 1e6)
}

/// Flags of `groundtone audit`.
#[derive(clap::Args)]
pub(crate) struct AuditArgs {
    /// How many entries, newest first
    #[arg(long, default_value_t = 100)]
    limit: u32,
    /// Only entries older than this one
    #[arg(long, value_name = "ID")]
    before: Option<String>,
    /// In whose data
    #[arg(long, default_value_t)]
    tenant: Tenant,
}

pub(crate) async fn audit_log(global: &Global, args: AuditArgs) -> anyhow::Result<()> {
    let config = settings(global, &[])?;
    let entries = match running_server(&config)? {
        Some(server) => {
            let before = args.before.map(|id| format!("&before={id}")).unwrap_or_default();
            let path = format!("/groundtone/audit?limit={}{before}", args.limit);
            let list: AuditList =
                get_json(&server.endpoint, &path).await.map_err(|error| hint(error, "`--before` takes the id of an entry"))?;
            list.entries
        }
        None => {
            let directory = data_directory(&config, "groundtone audit")?;
            Catalog::open(&directory).await?.audited(&args.tenant, args.before.as_deref(), args.limit).await?
        }
    };
    if global.json {
        return json(&value!({"entries": entries}));
    }
    for entry in &entries {
        let who = entry.key.as_deref().unwrap_or("nobody's key");
        let status = entry.status.map_or_else(|| "?".to_owned(), |status| status.to_string());
        line(format!("{}  {who}  {}  {status}  from {}", when(entry.at), entry.action, entry.origin))?;
    }
    if entries.is_empty() { line("nothing was done yet") } else { Ok(()) }
}
