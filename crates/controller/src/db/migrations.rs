//! The tables, as a list of steps: what was once released is never changed, only followed.
//!
//! Steps are written for SQLite; [`translated`] turns their few words into PostgreSQL's.

use sqlx::{AssertSqlSafe, Row};

use super::{Db, DbError, Doing, Engine, Tx};

/// Step N brings version N to N + 1.
const STEPS: &[&str] = &["
    CREATE TABLE meta (key TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT;
    CREATE TABLE tokens (
        hash BLOB PRIMARY KEY, name TEXT NOT NULL, created_ms INTEGER NOT NULL
    ) STRICT;

    -- Objects, as operators wrote them. A device's uid is the id of the node.
    CREATE TABLE objects (
        kind TEXT NOT NULL, name TEXT NOT NULL, uid BLOB NOT NULL UNIQUE, spec TEXT NOT NULL,
        generation INTEGER NOT NULL, restart INTEGER NOT NULL, purge INTEGER NOT NULL,
        pinned TEXT, changed_ms INTEGER NOT NULL,
        PRIMARY KEY (kind, name)
    ) STRICT;

    -- Who a node is. Rows stay when the object goes (gone_ms): a deleted node is told so.
    CREATE TABLE devices (
        id BLOB PRIMARY KEY, serial TEXT NOT NULL, soft_serial TEXT NOT NULL,
        wildcard INTEGER NOT NULL, cert_pem BLOB, cert_hash BLOB UNIQUE,
        registered_ms INTEGER, seen_ms INTEGER, host TEXT, reboots INTEGER NOT NULL,
        token BLOB, gone_ms INTEGER
    ) STRICT;
    CREATE TABLE serials (serial TEXT PRIMARY KEY, created_ms INTEGER NOT NULL) STRICT;
    CREATE TABLE device_certs (
        device BLOB NOT NULL, kind INTEGER NOT NULL, hash BLOB NOT NULL, cert BLOB NOT NULL,
        PRIMARY KEY (device, kind)
    ) STRICT;

    -- The config each node was last told of: its digest without the time stamp, and that.
    CREATE TABLE configs (
        device BLOB PRIMARY KEY, digest BLOB NOT NULL, timestamp_ms INTEGER NOT NULL
    ) STRICT;

    CREATE TABLE infos (
        device BLOB NOT NULL, kind TEXT NOT NULL, subject TEXT NOT NULL,
        at_ms INTEGER NOT NULL, received_ms INTEGER NOT NULL, payload BLOB NOT NULL,
        PRIMARY KEY (device, kind, subject)
    ) STRICT;
    CREATE TABLE info_history (
        id INTEGER PRIMARY KEY AUTOINCREMENT, device BLOB NOT NULL, kind TEXT NOT NULL,
        subject TEXT NOT NULL, received_ms INTEGER NOT NULL, payload BLOB NOT NULL
    ) STRICT;
    CREATE INDEX info_history_device ON info_history (device, id);
    CREATE TABLE metrics (
        device BLOB PRIMARY KEY, received_ms INTEGER NOT NULL, payload BLOB NOT NULL
    ) STRICT;

    -- app: empty for the node's own.
    CREATE TABLE logs (
        id INTEGER PRIMARY KEY AUTOINCREMENT, device BLOB NOT NULL, app TEXT NOT NULL,
        at_ms INTEGER NOT NULL, severity TEXT NOT NULL, source TEXT NOT NULL, content TEXT NOT NULL
    ) STRICT;
    CREATE INDEX logs_device ON logs (device, app, id);
    CREATE TABLE log_bundles (
        id INTEGER PRIMARY KEY AUTOINCREMENT, device BLOB NOT NULL, app TEXT NOT NULL,
        digest BLOB NOT NULL, received_ms INTEGER NOT NULL, refused TEXT, raw BLOB,
        UNIQUE (device, app, digest)
    ) STRICT;

    CREATE TABLE events (
        id INTEGER PRIMARY KEY AUTOINCREMENT, at_ms INTEGER NOT NULL, device BLOB,
        object TEXT NOT NULL, text TEXT NOT NULL
    ) STRICT;
    ", "
    -- Every change of objects, nodes and serial numbers makes a revision; what changed stands in
    -- the journal, so that other processes can follow.
    CREATE TABLE revision (one INTEGER PRIMARY KEY, n INTEGER NOT NULL) STRICT;
    INSERT INTO revision VALUES (1, 1);
    CREATE TABLE journal (n INTEGER NOT NULL, kind TEXT NOT NULL, key TEXT NOT NULL) STRICT;
    CREATE INDEX journal_n ON journal (n);

    -- What an object said before; spec NULL: it was deleted.
    CREATE TABLE object_history (
        kind TEXT NOT NULL, name TEXT NOT NULL, revision INTEGER NOT NULL, spec TEXT,
        generation INTEGER NOT NULL, author TEXT NOT NULL, at_ms INTEGER NOT NULL,
        PRIMARY KEY (kind, name, revision)
    ) STRICT;
    -- Who did what.
    CREATE TABLE audit (
        id INTEGER PRIMARY KEY AUTOINCREMENT, at_ms INTEGER NOT NULL, author TEXT NOT NULL,
        action TEXT NOT NULL, object TEXT NOT NULL, detail TEXT NOT NULL
    ) STRICT;

    -- Apart from devices: it changes with every poll.
    CREATE TABLE seen (device BLOB PRIMARY KEY, at_ms INTEGER NOT NULL, host TEXT) STRICT;
    INSERT INTO seen SELECT id, seen_ms, host FROM devices WHERE seen_ms IS NOT NULL;
    CREATE INDEX seen_at ON seen (at_ms);
    CREATE INDEX infos_received ON infos (received_ms);
    CREATE TABLE metric_points (
        device BLOB NOT NULL, at_ms INTEGER NOT NULL, cpu_ns INTEGER NOT NULL,
        cpus INTEGER NOT NULL, memory_used INTEGER NOT NULL, memory_total INTEGER NOT NULL,
        disk_used INTEGER NOT NULL, disk_total INTEGER NOT NULL, received INTEGER NOT NULL,
        sent INTEGER NOT NULL, PRIMARY KEY (device, at_ms)
    ) STRICT;
    -- Messages that are kept as they came: flows, hardware health.
    CREATE TABLE messages (
        id INTEGER PRIMARY KEY AUTOINCREMENT, device BLOB NOT NULL, kind TEXT NOT NULL,
        received_ms INTEGER NOT NULL, payload BLOB NOT NULL
    ) STRICT;
    CREATE INDEX messages_device ON messages (device, kind, id);

    -- Attestation: what waits for a quote, the last verdict, keys that were given into our care.
    CREATE TABLE nonces (device BLOB PRIMARY KEY, nonce BLOB NOT NULL, made_ms INTEGER NOT NULL) STRICT;
    CREATE TABLE verdicts (
        device BLOB PRIMARY KEY, at_ms INTEGER NOT NULL, good INTEGER NOT NULL,
        verdict TEXT NOT NULL, quote BLOB
    ) STRICT;
    CREATE TABLE escrow (
        device BLOB NOT NULL, kind INTEGER NOT NULL, key BLOB NOT NULL, policy TEXT,
        at_ms INTEGER NOT NULL, PRIMARY KEY (device, kind)
    ) STRICT;

    -- Onboarding certificates beside our own; onboard: the SHA-256 of the one a node must come
    -- with, empty for ours.
    CREATE TABLE onboard_certs (hash BLOB PRIMARY KEY, pem BLOB NOT NULL, at_ms INTEGER NOT NULL) STRICT;
    ALTER TABLE devices ADD COLUMN onboard BLOB NOT NULL DEFAULT X'';
    ALTER TABLE devices ADD COLUMN quarantine TEXT;
    ALTER TABLE devices ADD COLUMN shutdowns INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE devices ADD COLUMN epoch INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE devices ADD COLUMN changed INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE infos ADD COLUMN words TEXT;
    ALTER TABLE configs ADD COLUMN revision INTEGER NOT NULL DEFAULT 0;
    ", "
    -- What a version of an object needs beside its spec to be told to a node again.
    ALTER TABLE object_history ADD COLUMN uid BLOB;
    ALTER TABLE object_history ADD COLUMN restart INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE object_history ADD COLUMN purge INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE object_history ADD COLUMN pinned TEXT;
    -- Objects that are older than their history.
    INSERT INTO object_history
        (kind, name, revision, spec, generation, author, at_ms, uid, restart, purge, pinned)
    SELECT kind, name, 0, spec, generation, '', changed_ms, uid, restart, purge, pinned FROM objects
    WHERE NOT EXISTS (SELECT 1 FROM object_history h
        WHERE h.kind = objects.kind AND h.name = objects.name);

    -- When the node said that it has it.
    ALTER TABLE configs ADD COLUMN taken_ms INTEGER;

    -- What only one process may do at a time.
    CREATE TABLE leases (
        name TEXT PRIMARY KEY, holder TEXT NOT NULL, until_ms INTEGER NOT NULL
    ) STRICT;

    -- What a node is told otherwise than the others: an object as it was at a revision (as_of), and
    -- what is added to its counters. A row that says nothing is as good as none; changed: revision.
    CREATE TABLE overlays (
        device BLOB NOT NULL, kind TEXT NOT NULL, name TEXT NOT NULL, as_of INTEGER,
        restart INTEGER NOT NULL, purge INTEGER NOT NULL, holder TEXT NOT NULL,
        why TEXT NOT NULL, since_ms INTEGER NOT NULL, changed INTEGER NOT NULL,
        PRIMARY KEY (device, kind, name)
    ) STRICT;
    CREATE INDEX overlays_changed ON overlays (changed);

    -- A group is a query over labels; a window says when its nodes may be disturbed.
    CREATE TABLE fleet_groups (
        name TEXT PRIMARY KEY, query TEXT NOT NULL, note TEXT NOT NULL
    ) STRICT;
    CREATE TABLE windows (name TEXT PRIMARY KEY, spec TEXT NOT NULL) STRICT;
    -- version: who writes says which one was read.
    CREATE TABLE rollouts (
        name TEXT PRIMARY KEY, plan TEXT NOT NULL, state TEXT NOT NULL, version INTEGER NOT NULL,
        author TEXT NOT NULL, created_ms INTEGER NOT NULL, open INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE rollout_members (
        rollout TEXT NOT NULL, device BLOB NOT NULL, state TEXT NOT NULL,
        PRIMARY KEY (rollout, device)
    ) STRICT;
    CREATE TABLE scheduled (
        name TEXT PRIMARY KEY, due_ms INTEGER NOT NULL, author TEXT NOT NULL,
        documents TEXT NOT NULL, state TEXT NOT NULL, outcome TEXT NOT NULL, done_ms INTEGER
    ) STRICT;

    CREATE TABLE alert_rules (name TEXT PRIMARY KEY, spec TEXT NOT NULL, secret BLOB) STRICT;
    CREATE TABLE alerts (
        id INTEGER PRIMARY KEY AUTOINCREMENT, rule TEXT NOT NULL, subject TEXT NOT NULL,
        text TEXT NOT NULL, since_ms INTEGER NOT NULL, ended_ms INTEGER, acked_by TEXT,
        acked_ms INTEGER
    ) STRICT;
    CREATE INDEX alerts_rule ON alerts (rule, subject, ended_ms);
    CREATE TABLE alert_queue (
        id INTEGER PRIMARY KEY AUTOINCREMENT, rule TEXT NOT NULL, body TEXT NOT NULL,
        attempts INTEGER NOT NULL, next_ms INTEGER NOT NULL, error TEXT NOT NULL
    ) STRICT;
    ", "
    -- Who may log in. password: a PHC string; issuer, subject: whom a provider says it is.
    -- projects: one a line; empty: all.
    CREATE TABLE users (
        name TEXT PRIMARY KEY, role TEXT NOT NULL, projects TEXT NOT NULL, password TEXT,
        issuer TEXT, subject TEXT, created_ms INTEGER NOT NULL, UNIQUE (issuer, subject)
    ) STRICT;
    INSERT INTO users (name, role, projects, created_ms) VALUES ('admin', 'admin', '', 0);
    CREATE TABLE api_tokens (
        hash BLOB PRIMARY KEY, owner TEXT NOT NULL, name TEXT NOT NULL, role TEXT NOT NULL,
        projects TEXT NOT NULL, created_ms INTEGER NOT NULL, ends_ms INTEGER, used_ms INTEGER,
        UNIQUE (owner, name)
    ) STRICT;
    INSERT INTO api_tokens (hash, owner, name, role, projects, created_ms)
        SELECT hash, 'admin', 'admin.token', 'admin', '', created_ms FROM tokens;
    DROP TABLE tokens;
    CREATE TABLE sessions (
        hash BLOB PRIMARY KEY, owner TEXT NOT NULL, role TEXT NOT NULL, projects TEXT NOT NULL,
        made_ms INTEGER NOT NULL, used_ms INTEGER NOT NULL
    ) STRICT;
    CREATE INDEX sessions_owner ON sessions (owner);
    CREATE TABLE login_links (hash BLOB PRIMARY KEY, owner TEXT NOT NULL, made_ms INTEGER NOT NULL) STRICT;
    CREATE TABLE oidc_states (
        hash BLOB PRIMARY KEY, nonce TEXT NOT NULL, verifier TEXT NOT NULL,
        made_ms INTEGER NOT NULL
    ) STRICT;
    -- Log-ins since the last good one.
    CREATE TABLE attempts (name TEXT PRIMARY KEY, failures INTEGER NOT NULL, last_ms INTEGER NOT NULL) STRICT;
    ALTER TABLE audit ADD COLUMN address TEXT NOT NULL DEFAULT '';
    ALTER TABLE audit ADD COLUMN outcome TEXT NOT NULL DEFAULT 'done';
    CREATE INDEX audit_author ON audit (author, id);
    ", "
    -- What a node must prove: the state of its machine that somebody accepted.
    CREATE TABLE baselines (
        device BLOB PRIMARY KEY, policy TEXT NOT NULL, author TEXT NOT NULL, at_ms INTEGER NOT NULL
    ) STRICT;
    ", "
    -- What lies in the object store: contents by SHA-256, each in parts that lie one behind the
    -- other. used_ms: when somebody last wanted it to stay.
    CREATE TABLE blobs (digest BLOB PRIMARY KEY, size INTEGER NOT NULL, used_ms INTEGER NOT NULL) STRICT;
    CREATE INDEX blobs_used ON blobs (used_ms);
    CREATE TABLE blob_parts (
        digest BLOB NOT NULL, at INTEGER NOT NULL, size INTEGER NOT NULL, place TEXT NOT NULL UNIQUE,
        PRIMARY KEY (digest, at)
    ) STRICT;
    -- What comes in; hash: the state of SHA-256 over what is there.
    CREATE TABLE uploads (
        id BLOB PRIMARY KEY, target TEXT NOT NULL, size INTEGER NOT NULL, hash BLOB NOT NULL,
        touched_ms INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE upload_parts (
        upload BLOB NOT NULL, at INTEGER NOT NULL, size INTEGER NOT NULL,
        place TEXT NOT NULL UNIQUE, PRIMARY KEY (upload, at)
    ) STRICT;
    -- Images that were pushed, and single files.
    CREATE TABLE manifests (
        repository TEXT NOT NULL, digest BLOB NOT NULL, media_type TEXT NOT NULL,
        at_ms INTEGER NOT NULL, PRIMARY KEY (repository, digest)
    ) STRICT;
    CREATE TABLE manifest_blobs (
        manifest BLOB NOT NULL, digest BLOB NOT NULL, PRIMARY KEY (manifest, digest)
    ) STRICT;
    CREATE INDEX manifest_blobs_digest ON manifest_blobs (digest);
    CREATE INDEX manifests_digest ON manifests (digest);
    CREATE TABLE tags (
        repository TEXT NOT NULL, tag TEXT NOT NULL, digest BLOB NOT NULL, at_ms INTEGER NOT NULL,
        PRIMARY KEY (repository, tag)
    ) STRICT;
    CREATE TABLE image_files (
        name TEXT PRIMARY KEY, digest BLOB NOT NULL, size INTEGER NOT NULL, author TEXT NOT NULL,
        at_ms INTEGER NOT NULL
    ) STRICT;
    CREATE INDEX image_files_digest ON image_files (digest);
    -- Nodes that have said nothing of their counters since a restore.
    CREATE TABLE restored (device BLOB PRIMARY KEY) STRICT;
    -- What is too large for its row lies under this digest.
    ALTER TABLE messages ADD COLUMN blob BLOB;
    CREATE INDEX messages_blob ON messages (blob) WHERE blob IS NOT NULL;
    ALTER TABLE log_bundles ADD COLUMN blob BLOB;
    CREATE INDEX log_bundles_blob ON log_bundles (blob) WHERE blob IS NOT NULL;
    ", "
    -- EdgeView sessions: how many there were, and the open one.
    ALTER TABLE devices ADD COLUMN views INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE devices ADD COLUMN view_token TEXT;
    ALTER TABLE devices ADD COLUMN view_until_ms INTEGER;
    ", "
    -- Bytes in the object store that a row stands for.
    ALTER TABLE messages ADD COLUMN size INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE log_bundles ADD COLUMN size INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE info_history ADD COLUMN size INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE info_history ADD COLUMN blob BLOB;
    CREATE INDEX info_history_blob ON info_history (blob) WHERE blob IS NOT NULL;
    -- Log files are read newest first.
    CREATE INDEX log_bundles_device ON log_bundles (device, app, id);
    -- What a node has said since a restore: 1 its counters, 2 its apps.
    ALTER TABLE restored ADD COLUMN said INTEGER NOT NULL DEFAULT 0;
    ", "
    -- A config that a node was given whole.
    ALTER TABLE devices ADD COLUMN given BLOB;
    ALTER TABLE devices ADD COLUMN given_version TEXT;
    ALTER TABLE devices ADD COLUMN given_by TEXT;
    ALTER TABLE devices ADD COLUMN given_ms INTEGER;
    ", "
    -- What is over gets old, and who deleted nodes were.
    ALTER TABLE rollouts ADD COLUMN ended_ms INTEGER;
    UPDATE rollouts SET ended_ms = created_ms WHERE open = 0;
    CREATE INDEX devices_gone ON devices (gone_ms) WHERE gone_ms IS NOT NULL;
    "];

/// A step in PostgreSQL's words.
fn translated(step: &str) -> String {
    step.replace(
        "INTEGER PRIMARY KEY AUTOINCREMENT",
        "BIGINT GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY",
    )
    .replace(" INTEGER", " BIGINT")
    .replace(" BLOB", " BYTEA")
    .replace(") STRICT;", ");")
    .replace("X''", "''")
}

/// Brings the tables to the newest version, one transaction a step.
pub(super) async fn run(db: &Db) -> Result<(), DbError> {
    run_to(db, i64::MAX).await
}

/// Brings the tables to a version; those that are there already stay.
pub(super) async fn run_to(db: &Db, upto: i64) -> Result<(), DbError> {
    let known = i64::try_from(STEPS.len()).unwrap_or(i64::MAX);
    if upto != i64::MAX && upto > known {
        return Err(DbError::Newer { found: upto, known });
    }
    loop {
        let mut tx = db.begin().await?;
        let found = version(db.engine(), &mut tx).await?;
        if found > known {
            return Err(DbError::Newer { found, known });
        }
        let step = usize::try_from(found).ok().and_then(|n| STEPS.get(n));
        let Some(step) = step.filter(|_| found < upto) else { return Ok(()) };
        let (step, note) = match db.engine() {
            // A pragma takes no parameters; the text is a number of ours.
            Engine::Sqlite => ((*step).to_owned(), format!("PRAGMA user_version = {}", found + 1)),
            Engine::Postgres => {
                (translated(step), format!("UPDATE schema_version SET n = {}", found + 1))
            }
        };
        sqlx::raw_sql(AssertSqlSafe(step)).execute(&mut *tx).await.doing("migrate its tables")?;
        sqlx::raw_sql(AssertSqlSafe(note)).execute(&mut *tx).await.doing("note its version")?;
        tx.commit().await.doing("finish a migration")?;
    }
}

async fn version(engine: Engine, tx: &mut Tx) -> Result<i64, DbError> {
    let doing = "tell its version";
    if engine == Engine::Sqlite {
        let row = sqlx::query("PRAGMA user_version").fetch_one(&mut **tx).await.doing(doing)?;
        // Small numbers come with fewer bits.
        let wide = row.try_get::<i64, _>(0);
        return wide.or_else(|_| row.try_get::<i32, _>(0).map(i64::from)).doing(doing);
    }
    // Two controllers that start at once migrate one after the other; the lock goes with the
    // transaction. Its number means nothing.
    let make = "SELECT pg_advisory_xact_lock(4995120);
                CREATE TABLE IF NOT EXISTS schema_version (n BIGINT NOT NULL);
                INSERT INTO schema_version SELECT 0
                WHERE NOT EXISTS (SELECT 1 FROM schema_version)";
    sqlx::raw_sql(make).execute(&mut **tx).await.doing(doing)?;
    let row =
        sqlx::query("SELECT n FROM schema_version").fetch_one(&mut **tx).await.doing(doing)?;
    row.try_get(0).doing(doing)
}
