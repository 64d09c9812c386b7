//! Who may use the operator API and the pages: users, their passwords, tokens and sessions.
//!
//! Every secret but a password is 32 random bytes; the database keeps its SHA-256 only. Passwords
//! are kept with Argon2id ([`password`]). Sessions and counts of wrong log-ins are in the database,
//! so that it does not matter which of several processes is asked.
//!
//! | File | What |
//! |---|---|
//! | [`caller`] | who asks, for which projects |
//! | [`permit`] | which role a request needs |
//! | [`limits`] | how much anybody may ask for |
//! | [`oidc`] | log-in by an OpenID provider |
//! | [`guard`] | what every request passes |

mod caller;
pub mod client;
pub(crate) mod guard;
pub(crate) mod limits;
pub mod oidc;
pub mod password;
pub(crate) mod permit;
pub mod shown;

use std::net::IpAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use model::UnixMillis;
use sha2::{Digest as _, Sha256};

use crate::db::{Audited, Db, DbError, SessionRow, TokenRow, UserChange, UserRow};
use crate::pki::{PkiError, save_secret};
use limits::{Buckets, OF_ADDRESS, OF_NAME, OF_PAIR};
use oidc::{Identity, Oidc, OidcError};
use password::{Cost, Guess, PasswordError, Passwords};

pub(crate) use caller::{Caller, kept_in, project_of};
pub use caller::{Projects, Role};
pub(crate) use limits::BackOff;
pub use limits::{Limits, Rate};

/// The file in the data folder that holds the administrator's token.
pub const TOKEN_FILE: &str = "admin.token";
/// The user that always exists at first.
pub const ADMIN: &str = "admin";
/// A session that is not used for so long ends.
const SESSION_IDLE: Duration = Duration::from_secs(12 * 3600);
/// And this long after it began, in any case.
const SESSION_LIFE: Duration = Duration::from_secs(7 * 24 * 3600);
/// More browsers of one user are not logged in at once; the one that was idle longest has to log in
/// again.
const SESSIONS_MAX: u32 = 64;
/// A link that logs in is good for so long, once.
pub(crate) const LINK_LIFE: Duration = Duration::from_secs(15 * 60);
/// Clocks of several controllers may differ by this; what is further in the future was made before
/// the clock was set back, and is not believed.
const CLOCKS: Duration = Duration::from_secs(120);
/// Uses are noted to this.
const USED_EVERY: Duration = Duration::from_secs(60);
/// Wrong log-ins are remembered for so long after the last.
const MEMORY: Duration = Duration::from_secs(3600);
const SWEEP_EVERY: Duration = Duration::from_secs(60);

/// The machine gives no random numbers: nothing secret can be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this machine gives no random numbers")]
pub struct NoRandomness;

/// Random bytes that nobody can guess.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], NoRandomness> {
    let mut raw = [0; N];
    aws_lc_rs::rand::fill(&mut raw).map_err(|_| NoRandomness)?;
    Ok(raw)
}

/// 32 random bytes in hexadecimal digits.
pub(crate) fn random_hex() -> Result<String, NoRandomness> {
    random::<32>().map(hex::encode)
}

/// What the database keeps of a secret. Looked up by it, how long that takes says nothing of the
/// secret.
pub(crate) fn hash(secret: &str) -> Vec<u8> {
    Sha256::digest(secret.trim().as_bytes()).to_vec()
}

/// Why a secret could not be made or kept.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// The database failed.
    #[error("cannot keep who may log in")]
    Db(#[from] DbError),
    /// The file could not be written.
    #[error("cannot write the administrator's token")]
    File(#[from] PkiError),
    /// There is nothing to make it of.
    #[error("cannot make a secret")]
    Random(#[from] NoRandomness),
    /// A password.
    #[error(transparent)]
    Password(#[from] PasswordError),
    /// The OpenID provider's settings.
    #[error(transparent)]
    Oidc(#[from] OidcError),
    /// There is no such user.
    #[error("there is no user {0}")]
    NoUser(String),
}

/// The administrator's token for `eve` on the same machine.
fn admin_token(now: UnixMillis) -> TokenRow {
    TokenRow {
        owner: ADMIN.to_owned(),
        name: TOKEN_FILE.to_owned(),
        role: Role::Admin,
        projects: Projects::default(),
        created: now,
        ends: None,
        used: None,
    }
}

/// Makes the administrator's token at the first start; returns it then.
pub(crate) async fn first_token(
    db: &Db,
    data: &Path,
    now: UnixMillis,
) -> Result<Option<String>, AccessError> {
    let made = db.meta("token-made", Vec::new).await?;
    if !made.is_empty() {
        return Ok(None);
    }
    // The file comes first: a cut before the database knows the token makes another one.
    let token = random_hex()?;
    save_secret(data, TOKEN_FILE, format!("{token}\n").as_bytes())?;
    db.add_token(&hash(&token), &admin_token(now), true).await?;
    db.set_meta("token-made", b"1").await?;
    Ok(Some(token))
}

/// Replaces the administrator's token; the old one is refused from now on.
pub(crate) async fn new_token(
    db: &Db,
    data: &Path,
    now: UnixMillis,
) -> Result<String, AccessError> {
    let token = random_hex()?;
    db.add_token(&hash(&token), &admin_token(now), true).await?;
    save_secret(data, TOKEN_FILE, format!("{token}\n").as_bytes())?;
    Ok(token)
}

/// A link that lets a user choose a password and logs them in: its path below the controller's URL.
pub(crate) async fn new_link(db: &Db, name: &str, now: UnixMillis) -> Result<String, AccessError> {
    if db.user(name).await?.is_none() {
        return Err(AccessError::NoUser(name.to_owned()));
    }
    let secret = random_hex()?;
    db.add_link(&hash(&secret), name, now).await?;
    Ok(format!("/first/{secret}"))
}

/// A link for the administrator, at the first start only: who reads the log later reads none.
pub(crate) async fn first_link(db: &Db, now: UnixMillis) -> Result<Option<String>, AccessError> {
    if !db.meta("link-made", Vec::new).await?.is_empty() {
        return Ok(None);
    }
    let path = new_link(db, ADMIN, now).await?;
    db.set_meta("link-made", b"1").await?;
    Ok(Some(path))
}

/// Why nobody was logged in.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refused {
    /// Name or password.
    #[error("the name or the password is wrong")]
    Wrong,
    /// Too many were wrong.
    #[error("too many log-ins failed; try again in {} s", limits::seconds(*.0))]
    Wait(Duration),
    /// We cannot.
    #[error(transparent)]
    Own(#[from] AccessError),
}

impl From<DbError> for Refused {
    fn from(e: DbError) -> Refused {
        Refused::Own(e.into())
    }
}

/// What decides who may do what, and remembers how often it was asked.
#[derive(Debug)]
pub(crate) struct Access {
    db: Db,
    pub(crate) limits: Limits,
    passwords: Passwords,
    calls: Buckets<Vec<u8>>,
    refusals: Buckets<IpAddr>,
    registrations: Buckets<IpAddr>,
    /// Who else says who somebody is.
    pub(crate) oidc: Option<Oidc>,
}

impl Access {
    pub(crate) fn new(db: &Db, limits: Limits, cost: Cost, oidc: Option<Oidc>) -> Access {
        Access {
            db: db.clone(),
            passwords: Passwords::new(cost),
            calls: Buckets::new(limits.calls),
            refusals: Buckets::new(limits.refusals),
            registrations: Buckets::new(limits.registrations),
            limits,
            oidc,
        }
    }

    /// Who shows this token. One at its end is forgotten.
    pub(crate) async fn by_token(
        &self,
        token: &str,
        now: UnixMillis,
    ) -> Result<Option<Caller>, DbError> {
        let credential = hash(token);
        let Some((row, owner)) = self.db.token(&credential).await? else { return Ok(None) };
        if row.ends.is_some_and(|end| end <= now) {
            self.db.end_token(&credential).await?;
            return Ok(None);
        }
        let Some(projects) = row.projects.both(&owner.projects) else { return Ok(None) };
        if row.used.is_none_or(|used| used > now || now.since(used) >= USED_EVERY) {
            self.db.token_used(&credential, now).await?;
        }
        Ok(Some(Caller {
            name: row.owner,
            role: row.role.min(owner.role),
            projects,
            token: Some(row.name),
            credential,
            address: None,
        }))
    }

    /// Whose session this is. One at its end is forgotten.
    pub(crate) async fn by_session(
        &self,
        session: &str,
        now: UnixMillis,
    ) -> Result<Option<Caller>, DbError> {
        let credential = hash(session);
        let Some((row, owner)) = self.db.session(&credential).await? else { return Ok(None) };
        if !session_holds(&row, now) {
            self.db.end_session(&credential).await?;
            return Ok(None);
        }
        let Some(projects) = row.projects.both(&owner.projects) else { return Ok(None) };
        if now.since(row.used) >= USED_EVERY {
            self.db.session_used(&credential, now).await?;
        }
        Ok(Some(Caller {
            name: row.owner,
            role: row.role.min(owner.role),
            projects,
            token: None,
            credential,
            address: None,
        }))
    }

    /// Whether a session still holds; asking is no use of it.
    pub(crate) async fn holds(&self, session: &str, now: UnixMillis) -> Result<bool, DbError> {
        let found = self.db.session(&hash(session)).await?;
        Ok(found.is_some_and(|(row, _)| session_holds(&row, now)))
    }

    /// A new session; its holder may do at most this. The caller has checked who it is.
    pub(crate) async fn begin_session(
        &self,
        owner: &str,
        (role, projects): (Role, Projects),
        now: UnixMillis,
    ) -> Result<String, AccessError> {
        let session = random_hex()?;
        let row = SessionRow { owner: owner.to_owned(), role, projects, made: now, used: now };
        self.db.add_session(&hash(&session), &row, SESSIONS_MAX).await?;
        Ok(session)
    }

    /// Whether a user with this name and password is to be let in. Wrong ones make the next wait.
    pub(crate) async fn log_in(
        &self,
        name: &str,
        password: &str,
        address: Option<IpAddr>,
        now: UnixMillis,
    ) -> Result<UserRow, Refused> {
        let done = self.try_password(name, password, address, now).await;
        let outcome = match &done {
            Ok(_) => "done".to_owned(),
            Err(Refused::Own(e)) => {
                tracing::error!("cannot log in: {}", model::chain(e));
                "failed".to_owned()
            }
            Err(e) => format!("refused: {e}"),
        };
        // A name that is none may be a password that went into the wrong field.
        let known = self.db.user(name).await?.is_some();
        let author = if known { name } else { "(unknown)" };
        self.note(author, "login", "", &outcome, address, now).await?;
        done
    }

    async fn try_password(
        &self,
        name: &str,
        password: &str,
        address: Option<IpAddr>,
        now: UnixMillis,
    ) -> Result<UserRow, Refused> {
        let from = address.map(|a| limits::one(a).to_string()).unwrap_or_default();
        // Names of any length come in; what is counted is not.
        let of_name = format!("name {}", hex::encode(hash(name)));
        let of_address = format!("address {from}");
        let of_pair = format!("pair {from} {}", hex::encode(hash(name)));
        let keys = [
            (of_address.clone(), OF_ADDRESS),
            (of_name.clone(), OF_NAME),
            (of_pair.clone(), OF_PAIR),
        ];
        self.db.begin_attempt(&keys, now, MEMORY).await?.map_err(Refused::Wait)?;
        let user = self.db.user(name).await?;
        let kept = user.as_ref().and_then(|u| u.password.clone());
        let guess = self.passwords.try_one(kept.clone(), password).await;
        let guess = guess.map_err(AccessError::from)?;
        let Some(user) = user.filter(|_| guess != Guess::Wrong) else {
            return Err(Refused::Wrong);
        };
        if let (Guess::Rehashed(new), Some(kept)) = (&guess, &kept) {
            self.db.rehash_password(name, kept, new).await?;
        }
        self.db.good_attempt(&[&of_pair, &of_name], &of_address).await?;
        Ok(user)
    }

    /// The user whom a provider says somebody is; made at the first log-in, with the role that the
    /// provider says at each.
    pub(crate) async fn welcome(
        &self,
        who: Identity,
        now: UnixMillis,
    ) -> Result<UserRow, AccessError> {
        let Identity { issuer, subject, name, role } = who;
        if let Some(user) = self.db.user_of(&issuer, &subject).await? {
            // The last administrator stays one: somebody must be able to mend the provider.
            let role = match self.db.set_role(&user.name, role, &user.projects).await? {
                UserChange::LastAdmin => user.role,
                _ => role,
            };
            return Ok(UserRow { role, ..user });
        }
        let mut new = UserRow {
            name,
            role,
            projects: Projects::default(),
            password: None,
            identity: Some((issuer, subject)),
            created: now,
        };
        if self.db.add_user(&new).await? == UserChange::Exists {
            // A name is whose it was first: nobody becomes another by choosing it elsewhere.
            new.name = format!("somebody-{}", hex::encode(random::<8>()?));
            self.db.add_user(&new).await?;
        }
        Ok(new)
    }

    /// Gives a user a new password; all sessions of theirs end.
    pub(crate) async fn set_password(
        &self,
        name: &str,
        password: &str,
    ) -> Result<UserChange, AccessError> {
        password::check(name, password)?;
        let kept = self.passwords.hash(password).await?;
        Ok(self.db.set_password(name, &kept).await?)
    }

    /// Makes a token for a user. It may do at most what `role` and `projects` say.
    pub(crate) async fn make_token(
        &self,
        owner: &str,
        spec: &shown::TokenSpec,
        (role, projects): (Role, Projects),
        replace: bool,
        now: UnixMillis,
    ) -> Result<Option<shown::MadeToken>, AccessError> {
        let secret = random_hex()?;
        let life = spec.hours.map(|h| Duration::from_secs(u64::from(h) * 3600));
        let row = TokenRow {
            owner: owner.to_owned(),
            name: spec.name.clone(),
            role,
            projects,
            created: now,
            ends: life.map(|life| now.after(life)),
            used: None,
        };
        match self.db.add_token(&hash(&secret), &row, replace).await? {
            UserChange::Done => {
                let owner = row.owner.clone();
                Ok(Some(shown::MadeToken { secret, token: told(row), owner }))
            }
            _ => Ok(None),
        }
    }

    /// Takes a call out of a token's bucket.
    pub(crate) fn may_call(&self, caller: &Caller) -> Result<(), Duration> {
        self.calls.take(caller.credential.clone(), Instant::now())
    }

    /// Counts credentials that nobody has.
    pub(crate) fn may_be_refused(&self, address: Option<IpAddr>) -> Result<(), Duration> {
        self.counted(&self.refusals, address)
    }

    /// Takes a registration out of an address' bucket.
    pub(crate) fn may_register(&self, address: Option<IpAddr>) -> Result<(), Duration> {
        self.counted(&self.registrations, address)
    }

    fn counted(&self, buckets: &Buckets<IpAddr>, from: Option<IpAddr>) -> Result<(), Duration> {
        let from = from.map(limits::one);
        match from.filter(|a| !(self.limits.spare_loopback && a.is_loopback())) {
            Some(address) => buckets.take(address, Instant::now()),
            None => Ok(()),
        }
    }

    /// Writes a line of the audit log.
    pub(crate) async fn note(
        &self,
        author: &str,
        action: &str,
        object: &str,
        outcome: &str,
        address: Option<IpAddr>,
        now: UnixMillis,
    ) -> Result<(), DbError> {
        let line = Audited {
            author: author.to_owned(),
            action: action.to_owned(),
            object: object.to_owned(),
            detail: String::new(),
            address: address.map(|a| a.to_canonical().to_string()).unwrap_or_default(),
            outcome: outcome.to_owned(),
        };
        self.db.audit(now, &line).await
    }

    /// Forgets what has ended, from time to time; ends never.
    pub(crate) async fn keep(&self, clock: crate::Clock) {
        let mut sweep = tokio::time::interval(SWEEP_EVERY);
        loop {
            sweep.tick().await;
            let now = clock();
            let before = |life: Duration| {
                UnixMillis(now.0.saturating_sub(u64::try_from(life.as_millis()).unwrap_or(0)))
            };
            let (idle, oldest, links) =
                (before(SESSION_IDLE), before(SESSION_LIFE), before(LINK_LIFE));
            if let Err(e) = self.db.sweep_access(now, idle, oldest, links).await {
                tracing::error!("{}", model::chain(&e));
            }
        }
    }
}

fn session_holds(row: &SessionRow, now: UnixMillis) -> bool {
    let future = now.after(CLOCKS);
    row.made <= future
        && row.used <= future
        && now.since(row.made) < SESSION_LIFE
        && now.since(row.used) < SESSION_IDLE
}

/// Whether a link is still good: made within its life, and not in a future that the clock has left.
pub(crate) fn link_holds(made: UnixMillis, now: UnixMillis) -> bool {
    made <= now.after(CLOCKS) && now.since(made) < LINK_LIFE
}

pub(crate) fn told(row: TokenRow) -> shown::Token {
    let TokenRow { name, role, projects, created, ends, used, .. } = row;
    shown::Token { name, role, projects, created, ends, used }
}

/// Whether a text can be the name of a user or a token: 1 to 64 letters that are seen.
pub(crate) fn is_name(text: &str) -> bool {
    let seen = |c: char| !c.is_control() && !c.is_whitespace();
    (1..=64).contains(&text.chars().count()) && text.chars().all(seen) && !text.contains('/')
}
