//! What nodes say is kept in batches: all that waits while one batch is being written goes into the
//! next, so that one sync of the disk serves many. A message is acknowledged when its batch is on
//! the disk.

use std::sync::Arc;

use tokio::sync::{Mutex, mpsc, oneshot};

use crate::db::{Db, DbError, Engine, Incoming};

/// Messages of a batch.
const BATCH_MAX: usize = 256;
/// Messages that may wait; more have to wait with their senders.
const WAITING_MAX: usize = 1024;
/// PostgreSQL writes several batches at once.
const WRITERS: usize = 4;

#[derive(Debug)]
struct Waiting {
    message: Incoming,
    kept: oneshot::Sender<Result<(), DbError>>,
}

/// The way of messages into the database.
#[derive(Debug, Clone)]
pub(crate) struct Ingest(mpsc::Sender<Waiting>);

impl Ingest {
    /// Starts the writers; they end with the last [`Ingest`].
    pub(crate) fn start(db: &Db) -> Ingest {
        let (sender, receiver) = mpsc::channel(WAITING_MAX);
        let receiver = Arc::new(Mutex::new(receiver));
        let writers = if db.engine() == Engine::Sqlite { 1 } else { WRITERS };
        for _ in 0..writers {
            tokio::spawn(write(db.clone(), receiver.clone()));
        }
        Ingest(sender)
    }

    /// Whether as many messages wait as may: the database does not keep up.
    pub(crate) fn is_full(&self) -> bool {
        self.0.capacity() == 0
    }

    /// Keeps a message. Returns when it is on the disk.
    pub(crate) async fn keep(&self, message: Incoming) -> Result<(), DbError> {
        let (kept, outcome) = oneshot::channel();
        self.0.send(Waiting { message, kept }).await.map_err(|_| DbError::Closed)?;
        outcome.await.map_err(|_| DbError::Closed)?
    }
}

async fn write(db: Db, receiver: Arc<Mutex<mpsc::Receiver<Waiting>>>) {
    let mut batch = Vec::with_capacity(BATCH_MAX);
    loop {
        batch.clear();
        if receiver.lock().await.recv_many(&mut batch, BATCH_MAX).await == 0 {
            return;
        }
        // Writers that lock rows of the same nodes in different orders wait for each other; what one
        // node says stays in its order.
        batch.sort_by_key(|waiting| waiting.message.device);
        let (messages, kept): (Vec<Incoming>, Vec<_>) =
            batch.drain(..).map(|w| (w.message, w.kept)).unzip();
        let outcomes = match db.keep(&messages).await {
            Ok(()) => messages.iter().map(|_| Ok(())).collect(),
            Err(e) if messages.len() == 1 => vec![Err(e)],
            Err(_) => one_by_one(&db, &messages).await,
        };
        for (outcome, kept) in outcomes.into_iter().zip(kept) {
            // Whoever asked may be gone; the message is kept all the same.
            let _ = kept.send(outcome);
        }
    }
}

/// One message that cannot be kept must not hold up the others.
async fn one_by_one(db: &Db, messages: &[Incoming]) -> Vec<Result<(), DbError>> {
    let mut outcomes = Vec::with_capacity(messages.len());
    for message in messages {
        outcomes.push(db.keep(std::slice::from_ref(message)).await);
    }
    outcomes
}
