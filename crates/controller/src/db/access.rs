//! Who may log in: users, tokens, sessions, links; failures to.
//!
//! Secrets are kept as hashes. What has ended is deleted: a clock that is set back does not bring it
//! back.

use std::time::Duration;

use model::UnixMillis;
use sqlx::Row;
use sqlx::any::AnyRow;

use super::{Db, DbError, Doing, Tx, signed, text, unsigned};
use crate::access::{BackOff, Projects, Role};

/// A user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UserRow {
    pub(crate) name: String,
    pub(crate) role: Role,
    pub(crate) projects: Projects,
    /// PHC string; `None`: this user does not log in with a password.
    pub(crate) password: Option<String>,
    /// Issuer and subject, if a provider says who this is.
    pub(crate) identity: Option<(String, String)>,
    pub(crate) created: UnixMillis,
}

/// A token of a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TokenRow {
    pub(crate) owner: String,
    pub(crate) name: String,
    pub(crate) role: Role,
    pub(crate) projects: Projects,
    pub(crate) created: UnixMillis,
    /// `None`: never.
    pub(crate) ends: Option<UnixMillis>,
    pub(crate) used: Option<UnixMillis>,
}

/// A session of a browser.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SessionRow {
    pub(crate) owner: String,
    pub(crate) role: Role,
    pub(crate) projects: Projects,
    pub(crate) made: UnixMillis,
    pub(crate) used: UnixMillis,
}

/// What is waited for from an OpenID provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OidcStateRow {
    pub(crate) nonce: String,
    pub(crate) verifier: String,
    pub(crate) made: UnixMillis,
}

/// What became of a change of users.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum UserChange {
    Done,
    /// There is no such user, or no such token of theirs.
    Missing,
    /// There is one already.
    Exists,
    /// Nobody would be left who may change users.
    LastAdmin,
}

fn damaged(what: &str, why: impl ToString) -> DbError {
    DbError::Damaged { what: what.to_owned(), why: why.to_string() }
}

fn role(row: &AnyRow, at: usize) -> Result<Role, DbError> {
    let text: String = row.try_get(at).doing("read a role")?;
    text.parse().map_err(|e: String| damaged("role", e))
}

fn projects(row: &AnyRow, at: usize) -> Result<Projects, DbError> {
    let text: String = row.try_get(at).doing("read projects")?;
    Ok(Projects::from_lines(&text))
}

fn moment(row: &AnyRow, at: usize) -> Result<UnixMillis, DbError> {
    Ok(UnixMillis(unsigned(row.try_get(at).doing("read a time")?)))
}

fn maybe_moment(row: &AnyRow, at: usize) -> Result<Option<UnixMillis>, DbError> {
    let found: Option<i64> = row.try_get(at).doing("read a time")?;
    Ok(found.map(|n| UnixMillis(unsigned(n))))
}

fn user(row: &AnyRow) -> Result<UserRow, DbError> {
    let doing = "read a user";
    let issuer: Option<String> = row.try_get(4).doing(doing)?;
    let subject: Option<String> = row.try_get(5).doing(doing)?;
    Ok(UserRow {
        name: row.try_get(0).doing(doing)?,
        role: role(row, 1)?,
        projects: projects(row, 2)?,
        password: row.try_get(3).doing(doing)?,
        identity: issuer.zip(subject),
        created: moment(row, 6)?,
    })
}

fn token(row: &AnyRow) -> Result<TokenRow, DbError> {
    let doing = "read a token";
    Ok(TokenRow {
        owner: row.try_get(0).doing(doing)?,
        name: row.try_get(1).doing(doing)?,
        role: role(row, 2)?,
        projects: projects(row, 3)?,
        created: moment(row, 4)?,
        ends: maybe_moment(row, 5)?,
        used: maybe_moment(row, 6)?,
    })
}

/// The owner of a token or a session: role, projects and time of making from the column `at` on.
fn owner(row: &AnyRow, name: &str, at: usize) -> Result<UserRow, DbError> {
    Ok(UserRow {
        name: name.to_owned(),
        role: role(row, at)?,
        projects: projects(row, at + 1)?,
        password: None,
        identity: None,
        created: moment(row, at + 2)?,
    })
}

/// Two who take the role from each other come one after the other.
async fn lock_admins(tx: &mut Tx) -> Result<(), DbError> {
    sqlx::query("UPDATE users SET role = role WHERE role = 'admin'")
        .execute(&mut **tx)
        .await
        .doing("lock the administrators")
        .map(drop)
}

/// True if an administrator is left who has all projects.
async fn an_admin_is_left(tx: &mut Tx) -> Result<bool, DbError> {
    let row = sqlx::query("SELECT count(*) FROM users WHERE role = 'admin' AND projects = ''")
        .fetch_one(&mut **tx)
        .await
        .doing("count administrators")?;
    let left: i64 = row.try_get(0).doing("count administrators")?;
    Ok(left > 0)
}

async fn forget_sessions(tx: &mut Tx, owner: &str) -> Result<(), DbError> {
    for statement in
        ["DELETE FROM sessions WHERE owner = $1", "DELETE FROM login_links WHERE owner = $1"]
    {
        sqlx::query(statement).bind(owner).execute(&mut **tx).await.doing("end sessions")?;
    }
    Ok(())
}

impl Db {
    /// All users, by name.
    pub(crate) async fn users(&self) -> Result<Vec<UserRow>, DbError> {
        let rows = sqlx::query("SELECT name, role, projects, password, issuer, subject, created_ms FROM users ORDER BY name")
            .fetch_all(self.read())
            .await
            .doing("read the users")?;
        rows.iter().map(user).collect()
    }

    /// A user.
    pub(crate) async fn user(&self, name: &str) -> Result<Option<UserRow>, DbError> {
        let row = sqlx::query("SELECT name, role, projects, password, issuer, subject, created_ms FROM users WHERE name = $1")
            .bind(text(name))
            .fetch_optional(self.read())
            .await
            .doing("look up a user")?;
        row.as_ref().map(user).transpose()
    }

    /// The user that a provider knows under this subject.
    pub(crate) async fn user_of(
        &self,
        issuer: &str,
        subject: &str,
    ) -> Result<Option<UserRow>, DbError> {
        let row = sqlx::query("SELECT name, role, projects, password, issuer, subject, created_ms FROM users WHERE issuer = $1 AND subject = $2")
            .bind(text(issuer))
            .bind(text(subject))
            .fetch_optional(self.read())
            .await
            .doing("look up a user")?;
        row.as_ref().map(user).transpose()
    }

    /// Makes a user known.
    pub(crate) async fn add_user(&self, new: &UserRow) -> Result<UserChange, DbError> {
        let done = sqlx::query(
            "INSERT INTO users (name, role, projects, password, issuer, subject, created_ms)
             VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING",
        )
        .bind(text(&new.name))
        .bind(new.role.name())
        .bind(new.projects.lines())
        .bind(new.password.as_deref())
        .bind(new.identity.as_ref().map(|(issuer, _)| text(issuer)))
        .bind(new.identity.as_ref().map(|(_, subject)| text(subject)))
        .bind(signed(new.created.0))
        .execute(self.write())
        .await
        .doing("store a user")?;
        Ok(if done.rows_affected() == 1 { UserChange::Done } else { UserChange::Exists })
    }

    /// Gives a user another role and other projects. Sessions go on, with what is left to them.
    pub(crate) async fn set_role(
        &self,
        name: &str,
        role: Role,
        projects: &Projects,
    ) -> Result<UserChange, DbError> {
        let doing = "change a user";
        let mut tx = self.begin().await?;
        lock_admins(&mut tx).await?;
        let done = sqlx::query("UPDATE users SET role = $2, projects = $3 WHERE name = $1")
            .bind(text(name))
            .bind(role.name())
            .bind(projects.lines())
            .execute(&mut *tx)
            .await
            .doing(doing)?;
        if done.rows_affected() == 0 {
            return Ok(UserChange::Missing);
        }
        if !an_admin_is_left(&mut tx).await? {
            tx.rollback().await.doing(doing)?;
            return Ok(UserChange::LastAdmin);
        }
        tx.commit().await.doing(doing)?;
        Ok(UserChange::Done)
    }

    /// Gives a user a new password, and ends all sessions of theirs.
    pub(crate) async fn set_password(
        &self,
        name: &str,
        password: &str,
    ) -> Result<UserChange, DbError> {
        let doing = "store a password";
        let mut tx = self.begin().await?;
        let done = sqlx::query("UPDATE users SET password = $2 WHERE name = $1")
            .bind(text(name))
            .bind(password)
            .execute(&mut *tx)
            .await
            .doing(doing)?;
        if done.rows_affected() == 0 {
            return Ok(UserChange::Missing);
        }
        forget_sessions(&mut tx, name).await?;
        tx.commit().await.doing(doing)?;
        Ok(UserChange::Done)
    }

    /// Keeps the same password at another cost, unless it was changed meanwhile.
    pub(crate) async fn rehash_password(
        &self,
        name: &str,
        before: &str,
        after: &str,
    ) -> Result<(), DbError> {
        sqlx::query("UPDATE users SET password = $3 WHERE name = $1 AND password = $2")
            .bind(text(name))
            .bind(before)
            .bind(after)
            .execute(self.write())
            .await
            .doing("store a password")
            .map(drop)
    }

    /// Forgets a user with all tokens and sessions.
    pub(crate) async fn delete_user(&self, name: &str) -> Result<UserChange, DbError> {
        let doing = "delete a user";
        let mut tx = self.begin().await?;
        lock_admins(&mut tx).await?;
        let done = sqlx::query("DELETE FROM users WHERE name = $1")
            .bind(text(name))
            .execute(&mut *tx)
            .await
            .doing(doing)?;
        if done.rows_affected() == 0 {
            return Ok(UserChange::Missing);
        }
        if !an_admin_is_left(&mut tx).await? {
            tx.rollback().await.doing(doing)?;
            return Ok(UserChange::LastAdmin);
        }
        forget_sessions(&mut tx, name).await?;
        sqlx::query("DELETE FROM api_tokens WHERE owner = $1")
            .bind(text(name))
            .execute(&mut *tx)
            .await
            .doing(doing)?;
        tx.commit().await.doing(doing)?;
        Ok(UserChange::Done)
    }

    /// Keeps a token by the hash of its secret. With `replace` one of the same owner and name goes.
    pub(crate) async fn add_token(
        &self,
        hash: &[u8],
        new: &TokenRow,
        replace: bool,
    ) -> Result<UserChange, DbError> {
        let doing = "store a token";
        let mut tx = self.begin().await?;
        if replace {
            sqlx::query("DELETE FROM api_tokens WHERE owner = $1 AND name = $2")
                .bind(text(&new.owner))
                .bind(text(&new.name))
                .execute(&mut *tx)
                .await
                .doing(doing)?;
        }
        let done = sqlx::query(
            "INSERT INTO api_tokens (hash, owner, name, role, projects, created_ms, ends_ms, used_ms)
             VALUES ($1, $2, $3, $4, $5, $6, $7, NULL) ON CONFLICT DO NOTHING",
        )
        .bind(hash)
        .bind(text(&new.owner))
        .bind(text(&new.name))
        .bind(new.role.name())
        .bind(new.projects.lines())
        .bind(signed(new.created.0))
        .bind(new.ends.map(|t| signed(t.0)))
        .execute(&mut *tx)
        .await
        .doing(doing)?;
        tx.commit().await.doing(doing)?;
        Ok(if done.rows_affected() == 1 { UserChange::Done } else { UserChange::Exists })
    }

    /// The tokens of a user, by name.
    pub(crate) async fn tokens(&self, owner: &str) -> Result<Vec<TokenRow>, DbError> {
        let rows = sqlx::query(
            "SELECT owner, name, role, projects, created_ms, ends_ms, used_ms FROM api_tokens
             WHERE owner = $1 ORDER BY name",
        )
        .bind(text(owner))
        .fetch_all(self.read())
        .await
        .doing("read tokens")?;
        rows.iter().map(token).collect()
    }

    /// The token with this hash, and its user.
    pub(crate) async fn token(&self, hash: &[u8]) -> Result<Option<(TokenRow, UserRow)>, DbError> {
        let row = sqlx::query(
            "SELECT t.owner, t.name, t.role, t.projects, t.created_ms, t.ends_ms, t.used_ms,
                    u.role, u.projects, u.created_ms
             FROM api_tokens t JOIN users u ON u.name = t.owner WHERE t.hash = $1",
        )
        .bind(hash)
        .fetch_optional(self.read())
        .await
        .doing("look up a token")?;
        let Some(row) = row else { return Ok(None) };
        let token = token(&row)?;
        let owner = owner(&row, &token.owner, 7)?;
        Ok(Some((token, owner)))
    }

    /// Notes that a token was used.
    pub(crate) async fn token_used(&self, hash: &[u8], now: UnixMillis) -> Result<(), DbError> {
        sqlx::query("UPDATE api_tokens SET used_ms = $2 WHERE hash = $1")
            .bind(hash)
            .bind(signed(now.0))
            .execute(self.write())
            .await
            .doing("note the use of a token")
            .map(drop)
    }

    /// Forgets a token of a user.
    pub(crate) async fn delete_token(
        &self,
        owner: &str,
        name: &str,
    ) -> Result<UserChange, DbError> {
        let done = sqlx::query("DELETE FROM api_tokens WHERE owner = $1 AND name = $2")
            .bind(text(owner))
            .bind(text(name))
            .execute(self.write())
            .await
            .doing("delete a token")?;
        Ok(if done.rows_affected() == 0 { UserChange::Missing } else { UserChange::Done })
    }

    /// Forgets the token with this hash.
    pub(crate) async fn end_token(&self, hash: &[u8]) -> Result<(), DbError> {
        sqlx::query("DELETE FROM api_tokens WHERE hash = $1")
            .bind(hash)
            .execute(self.write())
            .await
            .doing("delete a token")
            .map(drop)
    }

    /// Keeps a session by the hash of its secret; of one owner the newest `most` stay.
    pub(crate) async fn add_session(
        &self,
        hash: &[u8],
        new: &SessionRow,
        most: u32,
    ) -> Result<(), DbError> {
        let doing = "store a session";
        let mut tx = self.begin().await?;
        sqlx::query(
            "INSERT INTO sessions (hash, owner, role, projects, made_ms, used_ms)
             VALUES ($1, $2, $3, $4, $5, $6)",
        )
        .bind(hash)
        .bind(text(&new.owner))
        .bind(new.role.name())
        .bind(new.projects.lines())
        .bind(signed(new.made.0))
        .bind(signed(new.used.0))
        .execute(&mut *tx)
        .await
        .doing(doing)?;
        sqlx::query(
            "DELETE FROM sessions WHERE owner = $1 AND hash NOT IN
             (SELECT hash FROM sessions WHERE owner = $1 ORDER BY used_ms DESC, hash LIMIT $2)",
        )
        .bind(text(&new.owner))
        .bind(i64::from(most))
        .execute(&mut *tx)
        .await
        .doing(doing)?;
        tx.commit().await.doing(doing)
    }

    /// The session with this hash, and its user.
    pub(crate) async fn session(
        &self,
        hash: &[u8],
    ) -> Result<Option<(SessionRow, UserRow)>, DbError> {
        let doing = "look up a session";
        let row = sqlx::query(
            "SELECT s.owner, s.role, s.projects, s.made_ms, s.used_ms, u.role, u.projects,
                    u.created_ms
             FROM sessions s JOIN users u ON u.name = s.owner WHERE s.hash = $1",
        )
        .bind(hash)
        .fetch_optional(self.read())
        .await
        .doing(doing)?;
        let Some(row) = row else { return Ok(None) };
        let session = SessionRow {
            owner: row.try_get(0).doing(doing)?,
            role: role(&row, 1)?,
            projects: projects(&row, 2)?,
            made: moment(&row, 3)?,
            used: moment(&row, 4)?,
        };
        let owner = owner(&row, &session.owner, 5)?;
        Ok(Some((session, owner)))
    }

    /// Notes that a session was used.
    pub(crate) async fn session_used(&self, hash: &[u8], now: UnixMillis) -> Result<(), DbError> {
        sqlx::query("UPDATE sessions SET used_ms = $2 WHERE hash = $1")
            .bind(hash)
            .bind(signed(now.0))
            .execute(self.write())
            .await
            .doing("note the use of a session")
            .map(drop)
    }

    /// Ends a session.
    pub(crate) async fn end_session(&self, hash: &[u8]) -> Result<(), DbError> {
        sqlx::query("DELETE FROM sessions WHERE hash = $1")
            .bind(hash)
            .execute(self.write())
            .await
            .doing("end a session")
            .map(drop)
    }

    /// Keeps a link that logs a user in once; an earlier one no longer counts.
    pub(crate) async fn add_link(
        &self,
        hash: &[u8],
        owner: &str,
        now: UnixMillis,
    ) -> Result<(), DbError> {
        let doing = "store a login link";
        let mut tx = self.begin().await?;
        sqlx::query("DELETE FROM login_links WHERE owner = $1")
            .bind(text(owner))
            .execute(&mut *tx)
            .await
            .doing(doing)?;
        sqlx::query("INSERT INTO login_links (hash, owner, made_ms) VALUES ($1, $2, $3)")
            .bind(hash)
            .bind(text(owner))
            .bind(signed(now.0))
            .execute(&mut *tx)
            .await
            .doing(doing)?;
        tx.commit().await.doing(doing)
    }

    /// Whose link this is, and since when it is there.
    pub(crate) async fn link(&self, hash: &[u8]) -> Result<Option<(String, UnixMillis)>, DbError> {
        let doing = "look up a login link";
        let row = sqlx::query("SELECT owner, made_ms FROM login_links WHERE hash = $1")
            .bind(hash)
            .fetch_optional(self.read())
            .await
            .doing(doing)?;
        row.map(|r| Ok((r.try_get(0).doing(doing)?, moment(&r, 1)?))).transpose()
    }

    /// Uses a link up: true for one asker only.
    pub(crate) async fn take_link(&self, hash: &[u8]) -> Result<bool, DbError> {
        let done = sqlx::query("DELETE FROM login_links WHERE hash = $1")
            .bind(hash)
            .execute(self.write())
            .await
            .doing("use up a login link")?;
        Ok(done.rows_affected() == 1)
    }

    /// Remembers what an answer of a provider must fit to.
    pub(crate) async fn add_oidc_state(
        &self,
        hash: &[u8],
        new: &OidcStateRow,
    ) -> Result<(), DbError> {
        sqlx::query(
            "INSERT INTO oidc_states (hash, nonce, verifier, made_ms) VALUES ($1, $2, $3, $4)",
        )
        .bind(hash)
        .bind(&new.nonce)
        .bind(&new.verifier)
        .bind(signed(new.made.0))
        .execute(self.write())
        .await
        .doing("remember a log-in")
        .map(drop)
    }

    /// The same back; asking uses it up.
    pub(crate) async fn take_oidc_state(
        &self,
        hash: &[u8],
    ) -> Result<Option<OidcStateRow>, DbError> {
        let doing = "look up a log-in";
        let row = sqlx::query(
            "DELETE FROM oidc_states WHERE hash = $1 RETURNING nonce, verifier, made_ms",
        )
        .bind(hash)
        .fetch_optional(self.write())
        .await
        .doing(doing)?;
        let Some(row) = row else { return Ok(None) };
        Ok(Some(OidcStateRow {
            nonce: row.try_get(0).doing(doing)?,
            verifier: row.try_get(1).doing(doing)?,
            made: moment(&row, 2)?,
        }))
    }

    /// Counts an attempt to log in before it is looked at, so that many at once are counted, too.
    /// `Err` inside: how long to wait; nothing was counted then.
    pub(crate) async fn begin_attempt(
        &self,
        keys: &[(String, BackOff)],
        now: UnixMillis,
        memory: Duration,
    ) -> Result<Result<(), Duration>, DbError> {
        let doing = "count a log-in";
        let mut tx = self.begin().await?;
        let mut counted = Vec::new();
        for (key, back_off) in keys {
            // Written first: the row stays locked for whoever tries at the same moment.
            let row = sqlx::query(
                "INSERT INTO attempts (name, failures, last_ms) VALUES ($1, 1, $2)
                 ON CONFLICT (name) DO UPDATE SET failures = attempts.failures + 1
                 RETURNING failures, last_ms",
            )
            .bind(text(key))
            .bind(signed(now.0))
            .fetch_one(&mut *tx)
            .await
            .doing(doing)?;
            let failures: i64 = row.try_get(0).doing(doing)?;
            let last = moment(&row, 1)?;
            let before = u32::try_from(failures - 1).unwrap_or(u32::MAX);
            let ago = now.since(last);
            // From the future: the clock was set back since, and says nothing.
            let before = if last > now || ago >= memory { 0 } else { before };
            let wait = back_off.wait(before);
            if before > 0 && ago < wait {
                tx.rollback().await.doing(doing)?;
                return Ok(Err(wait.saturating_sub(ago)));
            }
            counted.push((key, before));
        }
        for (key, before) in counted {
            sqlx::query("UPDATE attempts SET failures = $2, last_ms = $3 WHERE name = $1")
                .bind(text(key))
                .bind(i64::from(before) + 1)
                .bind(signed(now.0))
                .execute(&mut *tx)
                .await
                .doing(doing)?;
        }
        tx.commit().await.doing(doing)?;
        Ok(Ok(()))
    }

    /// The attempt was good: `forgotten` start anew, `spared` are not charged for it.
    pub(crate) async fn good_attempt(
        &self,
        forgotten: &[&str],
        spared: &str,
    ) -> Result<(), DbError> {
        let doing = "count a log-in";
        for key in forgotten {
            sqlx::query("DELETE FROM attempts WHERE name = $1")
                .bind(text(key))
                .execute(self.write())
                .await
                .doing(doing)?;
        }
        sqlx::query("UPDATE attempts SET failures = failures - 1 WHERE name = $1 AND failures > 0")
            .bind(text(spared))
            .execute(self.write())
            .await
            .doing(doing)
            .map(drop)
    }

    /// Forgets what has ended: tokens at their end, and what is older than the moments given.
    pub(crate) async fn sweep_access(
        &self,
        now: UnixMillis,
        idle: UnixMillis,
        oldest: UnixMillis,
        links: UnixMillis,
    ) -> Result<(), DbError> {
        let doing = "forget what has ended";
        for (statement, moment) in [
            ("DELETE FROM api_tokens WHERE ends_ms IS NOT NULL AND ends_ms <= $1", now),
            ("DELETE FROM sessions WHERE used_ms < $1", idle),
            ("DELETE FROM sessions WHERE made_ms < $1", oldest),
            ("DELETE FROM login_links WHERE made_ms < $1", links),
            ("DELETE FROM oidc_states WHERE made_ms < $1", links),
            ("DELETE FROM attempts WHERE last_ms < $1", idle),
        ] {
            sqlx::query(statement)
                .bind(signed(moment.0))
                .execute(self.write())
                .await
                .doing(doing)?;
        }
        Ok(())
    }
}
