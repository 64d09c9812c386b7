//! `eve login`, `logout`, `whoami`, `user`, `token`, `audit`: who may use a controller.

use std::io::{BufRead, IsTerminal, Read};
use std::path::PathBuf;

use anyhow::Context as _;
use controller::AuditFilter;
use controller::access::client::look;
use controller::access::shown::{Login, NewPassword, Token, TokenSpec, User, UserSpec};
use controller::access::{Projects, Role};
use controller::client::Client;
use controller::words;
use host::clock;

use crate::contexts::{Context, Contexts};
use crate::controller::runtime;
use crate::fleet::To;
use crate::form::Form;
use crate::out::foreign::one_line;
use crate::out::{self, OrAdvise};

/// A password or a token of at most this size.
const SECRET_MAX: u64 = 4096;

/// `eve login|logout|whoami|user|token|audit …`
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Log in to a controller; later commands talk to it
    Login(LoginArgs),
    /// End the token of a login and forget it
    Logout {
        /// The context's name [default: the current one]
        context: Option<String>,
        #[command(flatten)]
        form: Form,
    },
    /// Who one is, and where
    Whoami {
        #[command(flatten)]
        to: To,
    },
    /// The controllers one is logged in to, and which one is meant
    ///
    /// With a name, that one is meant from now on.
    Context {
        /// Its name
        name: Option<String>,
        #[command(flatten)]
        form: Form,
    },
    /// Users: list, set, delete, password, link
    User {
        #[command(flatten)]
        to: To,
        #[command(subcommand)]
        command: Option<UserCommand>,
    },
    /// Tokens for programs: list, create, delete
    Token {
        #[command(flatten)]
        to: To,
        /// Of this user [default: one's own]
        #[arg(long, global = true, value_name = "NAME")]
        user: Option<String>,
        #[command(subcommand)]
        command: Option<TokenCommand>,
    },
    /// Who did what
    Audit(AuditArgs),
}

#[derive(Debug, clap::Args)]
pub(crate) struct LoginArgs {
    /// The controller: https://HOST:PORT
    url: String,
    /// The user's name [default: asked for]
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// Log in with a token, read from standard input, instead of a password
    #[arg(long, conflicts_with = "user")]
    with_token: bool,
    /// The certificate that vouches for the controller [default: what it shows, after a look at its
    /// fingerprint]
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// What the fingerprint (SHA-256) must be, instead of asking: that of the controller's own
    /// certificate, as browsers, `openssl s_client` and the start of `eve controller serve` show it, or
    /// that of the certificate which vouches for it
    #[arg(long, value_name = "HEX", conflicts_with = "ca")]
    fingerprint: Option<String>,
    /// What to call this login [default: the host's name]
    #[arg(long, value_name = "NAME")]
    as_context: Option<String>,
    /// For how many hours the login is good
    #[arg(long, value_name = "HOURS", default_value_t = 720)]
    hours: u32,
    #[command(flatten)]
    form: Form,
}

/// `eve user …`
#[derive(Debug, clap::Subcommand)]
pub(crate) enum UserCommand {
    /// All users
    List,
    /// Make a user, or give one another role or other projects
    #[command(visible_alias = "add")]
    Set {
        /// The name
        name: String,
        /// viewer, operator or admin [default: as it is; of a new user: viewer]
        #[arg(long)]
        role: Option<Role>,
        /// Limit to a project; give several times [default: as it is; of a new user: all]
        #[arg(long = "project", value_name = "NAME")]
        projects: Vec<String>,
        /// Limit to no project
        #[arg(long, conflicts_with = "projects")]
        all_projects: bool,
    },
    /// Forget a user with all tokens and sessions
    Delete {
        /// The name
        name: String,
    },
    /// Set a password: one's own, or with a name another user's
    Password {
        /// The user's name
        name: Option<String>,
    },
    /// Print a link by which a user chooses a password, good once and for 15 minutes
    Link {
        /// The user's name
        name: String,
    },
}

/// `eve token …`
#[derive(Debug, clap::Subcommand)]
pub(crate) enum TokenCommand {
    /// All tokens
    List,
    /// Make one; it is printed now and never again
    Create {
        /// Its name
        name: String,
        /// viewer, operator or admin; at most one's own [default: one's own]
        #[arg(long)]
        role: Option<Role>,
        /// Limit to a project; give several times [default: all of one's own]
        #[arg(long = "project", value_name = "NAME")]
        projects: Vec<String>,
        /// For how many hours it is good [default: for ever]
        #[arg(long, value_name = "HOURS")]
        hours: Option<u32>,
    },
    /// End one
    Delete {
        /// Its name
        name: String,
    },
}

#[derive(Debug, clap::Args)]
pub(crate) struct AuditArgs {
    #[command(flatten)]
    to: To,
    /// Only of this user
    #[arg(long, value_name = "NAME")]
    author: Option<String>,
    /// Only this action: created, deleted, login, POST …
    #[arg(long, value_name = "WORD")]
    action: Option<String>,
    /// Only of objects and paths that contain this
    #[arg(long, value_name = "TEXT")]
    object: Option<String>,
    /// Only from this address
    #[arg(long, value_name = "ADDRESS")]
    address: Option<String>,
    /// Only of the last so many hours
    #[arg(long, value_name = "HOURS")]
    hours: Option<u32>,
    /// The newest so many
    #[arg(long, short = 'n', default_value_t = 50, value_name = "LINES")]
    lines: u32,
}

pub(crate) fn run(command: Command) -> anyhow::Result<()> {
    runtime()?.block_on(perform(command))
}

async fn perform(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Login(args) => login(&args).await,
        Command::Logout { context, form } => logout(context.as_deref(), &form).await,
        Command::Whoami { to } => whoami(&to).await,
        Command::Context { name, form } => context(name, &form),
        Command::User { to, command } => user(&to, command.unwrap_or(UserCommand::List)).await,
        Command::Token { to, user, command } => {
            token(&to, user.as_deref(), command.unwrap_or(TokenCommand::List)).await
        }
        Command::Audit(args) => audit(&args).await,
    }
}

async fn login(args: &LoginArgs) -> anyhow::Result<()> {
    let url = args.url.trim_end_matches('/').to_owned();
    let (ca, fingerprint) = pinned(args, &url).await?;
    let (user, token) = if args.with_token {
        let token = ask("token: ")?;
        let me = Client::new(&url, &token, ca.as_bytes()).or_advise()?.me().await.or_advise()?;
        (me.name, token)
    } else {
        let user = match &args.user {
            Some(name) => name.clone(),
            None => ask_open("name: ")?,
        };
        let password = ask("password: ")?;
        let machine = host_name();
        // A login takes the place of the one before in the same context, and of no other.
        let context = args.as_context.as_deref().unwrap_or_else(|| short(&url));
        let seen = |c: &char| c.is_ascii_graphic() && *c != '/';
        let name = format!("login-{machine}-{context}").chars().filter(seen).take(64).collect();
        let token =
            TokenSpec { name, role: None, projects: Projects::default(), hours: Some(args.hours) };
        let client = Client::new(&url, "", ca.as_bytes()).or_advise()?;
        let made = client.log_in(&Login { name: user, password, token }).await.or_advise()?;
        (made.owner, made.secret)
    };
    let name = args.as_context.clone().unwrap_or_else(|| short(&url).to_owned());
    let mut contexts = Contexts::load()?;
    let context = Context { url: url.clone(), user: user.clone(), token, ca, fingerprint };
    contexts.known.insert(name.clone(), context);
    contexts.current.clone_from(&name);
    let path = contexts.save()?;
    let facts = serde_json::json!({ "context": name, "url": url, "user": user });
    args.form.told(&facts, |_| {
        let said = format!("logged in to {url} as {user}; context {name} in {}", path.display());
        one_line(&said).into_owned()
    })
}

/// What to know the controller by from now on: a file, or what it shows after a person agreed.
async fn pinned(args: &LoginArgs, url: &str) -> anyhow::Result<(String, String)> {
    if let Some(file) = &args.ca {
        let read = std::fs::read_to_string(file);
        let ca = read.with_context(|| format!("cannot read {}", file.display()))?;
        return Ok((ca, String::new()));
    }
    let shown = look(url).await.or_advise()?;
    match &args.fingerprint {
        Some(expected) if shown.is(expected) => {}
        Some(_) => {
            return Err(out::advised(
                format!("{url} has another fingerprint: {}", shown.own),
                "check the address; somebody may be in between",
            ));
        }
        None => {
            say!("{url} shows a certificate with the SHA-256 fingerprint");
            say!("  {}", shown.own);
            if shown.root != shown.own {
                say!("and one that vouches for it with");
                say!("  {}", shown.root);
            }
            let answer = ask_open("Is that right? (yes/no) ")?;
            if !["yes", "y"].contains(&answer.to_lowercase().as_str()) {
                return Err(out::advised(
                    "not logged in",
                    "compare it with what `eve controller serve` said at its start, or give \
                     root-certificate.pem from the controller's data folder with --ca",
                ));
            }
        }
    }
    Ok((shown.root_pem, shown.root))
}

async fn logout(name: Option<&str>, form: &Form) -> anyhow::Result<()> {
    let mut contexts = Contexts::load()?;
    let name = name.map_or_else(|| contexts.current.clone(), str::to_owned);
    let Some(context) = contexts.known.remove(&name) else {
        return Err(out::advised("not logged in", "`eve context` lists where one is"));
    };
    if contexts.current == name {
        contexts.current = contexts.known.keys().next().cloned().unwrap_or_default();
    }
    let client = Client::new(&context.url, &context.token, context.ca.as_bytes());
    let ended = match client {
        Ok(client) => client.log_out().await,
        Err(e) => Err(e),
    };
    // Also if nobody answers: the secret is not to stay here.
    contexts.save()?;
    match ended {
        Ok(()) if contexts.current.is_empty() => {
            form.done(&format!("logged out of {}", context.url))
        }
        Ok(()) => form.done(&format!(
            "logged out of {}; the context from now on: {}",
            context.url, contexts.current
        )),
        Err(e) => {
            say!("forgotten here, but {} did not end the token: {e}", context.url);
            Ok(())
        }
    }
}

/// A login, without its token.
#[derive(Debug, serde::Serialize)]
struct Known<'a> {
    context: &'a str,
    /// Whether it is the one that is meant if none is named.
    current: bool,
    url: &'a str,
    user: &'a str,
    fingerprint: &'a str,
}

fn context(name: Option<String>, form: &Form) -> anyhow::Result<()> {
    let mut contexts = Contexts::load()?;
    if let Some(name) = name {
        contexts.pick(Some(&name))?;
        contexts.current = name;
        contexts.save()?;
    }
    let known = contexts.known.iter().map(|(name, c)| Known {
        context: name,
        current: *name == contexts.current,
        url: &c.url,
        user: &c.user,
        fingerprint: &c.fingerprint,
    });
    form.told(&known.collect::<Vec<_>>(), |all| {
        if all.is_empty() {
            say!("not logged in anywhere; `eve login URL` logs in");
            return String::new();
        }
        known_contexts(all)
    })
}

fn known_contexts(all: &[Known<'_>]) -> String {
    let row = |k: &Known<'_>| {
        let mark = if k.current { "*" } else { "" };
        [mark, k.context, k.url, k.user, k.fingerprint].map(str::to_owned).to_vec()
    };
    let rows: Vec<Vec<String>> = all.iter().map(row).collect();
    out::aligned(&["", "context", "controller", "user", "fingerprint"], &rows)
}

async fn whoami(to: &To) -> anyhow::Result<()> {
    let client = to.client()?;
    let me = client.me().await.or_advise()?;
    to.told(&me, |me| {
        let projects = listed(&me.projects);
        let said = format!("{} at {}: {}, projects: {projects}", me.name, client.url(), me.role);
        one_line(&said).into_owned()
    })
}

fn listed(projects: &Projects) -> String {
    if projects.all() {
        return "all".to_owned();
    }
    projects.0.iter().map(String::as_str).collect::<Vec<_>>().join(", ")
}

async fn user(to: &To, command: UserCommand) -> anyhow::Result<()> {
    let client = to.client()?;
    match command {
        UserCommand::List => {
            let all = async || client.users().await.or_advise();
            to.print(all, |all| users(all)).await
        }
        UserCommand::Set { name, role, projects, all_projects } => {
            // What is not said stays: another role is not to open other projects.
            let before = client.users().await.or_advise()?.into_iter().find(|u| u.name == name);
            let role = role.or(before.as_ref().map(|u| u.role)).unwrap_or(Role::Viewer);
            let said = (!projects.is_empty() || all_projects)
                .then(|| Projects(projects.into_iter().collect()));
            let projects = said.or(before.map(|u| u.projects)).unwrap_or_default();
            let spec = UserSpec { role, projects };
            client.put_user(&name, &spec).await.or_advise()?;
            to.done(&format!("{name} is {role}, projects: {}", listed(&spec.projects)))
        }
        UserCommand::Delete { name } => {
            client.delete_user(&name).await.or_advise()?;
            to.done(&format!("user {name} deleted"))
        }
        UserCommand::Password { name: Some(name) } => {
            let new = NewPassword { old: String::new(), new: ask("new password: ")? };
            client.set_password(&name, &new).await.or_advise()?;
            to.done(&format!("{name} has a new password"))
        }
        UserCommand::Password { name: None } => {
            let old = ask("password of today: ")?;
            let new = NewPassword { old, new: ask("new password: ")? };
            client.change_password(&new).await.or_advise()?;
            to.done("password changed; browsers have to log in again")
        }
        UserCommand::Link { name } => {
            // First: the link is good once, and must not be lost for want of this.
            let fingerprint = client.fingerprint().await.or_advise()?;
            let link = client.link(&name).await.or_advise()?;
            let url = format!("{}{}", client.url(), link.path);
            let login = login_line(client.url(), &name, &fingerprint);
            say!("the link is good once, for {} minutes; then they log in with", link.minutes);
            say!("  {login}");
            let facts = serde_json::json!({ "link": url, "minutes": link.minutes, "login": login });
            to.told(&facts, |_| url)
        }
    }
}

async fn token(to: &To, user: Option<&str>, command: TokenCommand) -> anyhow::Result<()> {
    let client = to.client()?;
    match command {
        TokenCommand::List => {
            let all = async || client.tokens(user).await.or_advise();
            to.print(all, |all| tokens(all)).await
        }
        TokenCommand::Create { name, role, projects, hours } => {
            let projects = Projects(projects.into_iter().collect());
            let spec = TokenSpec { name, role, projects, hours };
            let made = client.make_token(user, &spec).await.or_advise()?;
            to.told(&made, |made| made.secret.clone())
        }
        TokenCommand::Delete { name } => {
            client.end_token(user, &name).await.or_advise()?;
            to.done(&format!("token {name} ended"))
        }
    }
}

async fn audit(args: &AuditArgs) -> anyhow::Result<()> {
    let hours = args.hours.map(|h| u64::from(h) * 3_600_000);
    let which = AuditFilter {
        author: args.author.clone().unwrap_or_default(),
        action: args.action.clone().unwrap_or_default(),
        object: args.object.clone().unwrap_or_default(),
        address: args.address.clone().unwrap_or_default(),
        after: 0,
        since: hours.map(|back| clock::now().0.saturating_sub(back)),
        until: None,
        limit: Some(args.lines),
    };
    let client = args.to.client()?;
    args.to.print(async || client.audit(&which).await.or_advise(), |lines| audited(lines)).await
}

fn audited(lines: &[controller::AuditRow]) -> String {
    let row = |l: &controller::AuditRow| {
        let fields = [&l.author, &l.address, &l.action, &l.object, &l.outcome];
        let mut row = vec![words::time(l.at)];
        row.extend(fields.map(String::clone));
        row
    };
    let rows: Vec<Vec<String>> = lines.iter().map(row).collect();
    out::aligned(&["time", "author", "address", "action", "object", "outcome"], &rows)
}

fn users(all: &[User]) -> String {
    let row = |u: &User| {
        let by = match (&u.provider, u.password) {
            (Some(provider), _) => provider.clone(),
            (None, true) => "password".to_owned(),
            (None, false) => "tokens only".to_owned(),
        };
        vec![u.name.clone(), u.role.to_string(), listed(&u.projects), by]
    };
    let rows: Vec<Vec<String>> = all.iter().map(row).collect();
    out::aligned(&["name", "role", "projects", "logs in by"], &rows)
}

fn tokens(all: &[Token]) -> String {
    let now = clock::now();
    let row = |t: &Token| {
        vec![
            t.name.clone(),
            t.role.to_string(),
            listed(&t.projects),
            t.ends.map_or_else(|| "never".to_owned(), words::time),
            t.used.map_or_else(|| "never".to_owned(), |at| words::ago(now, at)),
        ]
    };
    let rows: Vec<Vec<String>> = all.iter().map(row).collect();
    out::aligned(&["token", "role", "projects", "ends", "last used"], &rows)
}

/// What somebody types who knows the controller by nothing yet.
pub(crate) fn login_line(url: &str, user: &str, fingerprint: &str) -> String {
    format!("eve login {url} --user {} --fingerprint {fingerprint}", quoted(user))
}

/// A word as a shell reads it.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-@+".contains(c);
    if word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// `edge.example` of `https://edge.example:8443`.
fn short(url: &str) -> &str {
    let rest = url.strip_prefix("https://").unwrap_or(url);
    match rest.rsplit_once(':') {
        Some((host, port)) if port.chars().all(|c| c.is_ascii_digit()) => host,
        _ => rest,
    }
}

fn host_name() -> String {
    let mut text = String::new();
    let file = std::fs::File::open("/proc/sys/kernel/hostname");
    let read = file.and_then(|f| f.take(64).read_to_string(&mut text));
    let name: String = text.trim().chars().filter(char::is_ascii_graphic).take(50).collect();
    if read.is_err() || name.is_empty() { "here".to_owned() } else { name.replace('/', "-") }
}

fn ask_open(question: &str) -> anyhow::Result<String> {
    if std::io::stdin().is_terminal() {
        out::say_question(question);
    }
    read_line()
}

/// Asks without showing what is typed. What is no terminal is read as it is.
pub(crate) fn ask(question: &str) -> anyhow::Result<String> {
    use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};

    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        return read_line();
    }
    out::say_question(question);
    let before = tcgetattr(&stdin).context("cannot ask the terminal")?;
    let mut silent = before.clone();
    silent.local_modes.remove(LocalModes::ECHO);
    tcsetattr(&stdin, OptionalActions::Flush, &silent).context("cannot silence the terminal")?;
    let answer = read_line();
    tcsetattr(&stdin, OptionalActions::Now, &before).context("cannot restore the terminal")?;
    out::say_question("\n");
    answer
}

fn read_line() -> anyhow::Result<String> {
    let mut line = String::new();
    let read = std::io::stdin().lock().take(SECRET_MAX).read_line(&mut line);
    read.context("cannot read standard input")?;
    Ok(line.trim_end_matches(['\n', '\r']).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contexts_are_called_by_their_host() {
        assert_eq!(short("https://edge.example:8443"), "edge.example");
        assert_eq!(short("https://edge.example"), "edge.example");
        assert_eq!(short("https://[::1]:9"), "[::1]");
    }

    #[test]
    fn the_line_to_hand_on_is_one_that_a_shell_reads() {
        let line = login_line("https://edge.example:8443", "ann@example.com", "AB:CD");
        let want = "eve login https://edge.example:8443 --user ann@example.com --fingerprint AB:CD";
        assert_eq!(line, want);
        assert_eq!(quoted("o'neill $(id)"), r"'o'\''neill $(id)'");
    }
}
