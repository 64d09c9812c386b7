//! Work that many threads share and whose results come in order.

use std::collections::BTreeMap;
use std::num::NonZero;
use std::sync::{Mutex, PoisonError, mpsc};
use std::thread;

/// Jobs that wait for each thread: enough that none runs dry while results are put away.
const AHEAD: usize = 8;

/// Takes jobs from `next` until there are none, does them on `threads` threads and gives the results
/// to `take` in the order of the jobs. `start` makes what a thread works with. `next` and `take` run
/// here; the first error ends all.
pub(crate) fn in_order<J: Send, R: Send, E, W: FnMut(J) -> R>(
    threads: NonZero<usize>,
    mut next: impl FnMut() -> Result<Option<J>, E>,
    start: impl Fn() -> W + Sync,
    mut take: impl FnMut(R) -> Result<(), E>,
) -> Result<(), E> {
    let threads = threads.get();
    if threads == 1 {
        let mut work = start();
        while let Some(job) = next()? {
            take(work(job))?;
        }
        return Ok(());
    }
    let (jobs, waiting) = mpsc::channel();
    let (done, results) = mpsc::channel();
    let waiting = Mutex::new(waiting);
    thread::scope(|scope| {
        for _ in 0..threads {
            let (done, waiting, start) = (done.clone(), &waiting, &start);
            scope.spawn(move || {
                let mut work = start();
                while let Some((number, job)) = receive(waiting) {
                    if done.send((number, work(job))).is_err() {
                        return; // nobody wants results any more
                    }
                }
            });
        }
        drop(done);
        let (mut given, mut taken) = (0usize, 0usize);
        let mut early = BTreeMap::new();
        let mut more = true;
        while more || taken < given {
            if more && given - taken < threads * AHEAD {
                match next()? {
                    // The workers live as long as `jobs` does.
                    Some(job) => drop(jobs.send((given, job))),
                    None => more = false,
                }
                given += usize::from(more);
                continue;
            }
            // A worker that panicked takes this scope with it.
            let Ok((number, result)) = results.recv() else { break };
            early.insert(number, result);
            while let Some(result) = early.remove(&taken) {
                taken += 1;
                take(result)?;
            }
        }
        drop(jobs);
        Ok(())
    })
}

fn receive<T>(waiting: &Mutex<mpsc::Receiver<T>>) -> Option<T> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner).recv().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn squares(threads: usize, until: usize, stop: usize) -> Result<Vec<usize>, String> {
        let (mut n, mut all) = (0, Vec::new());
        let next = || {
            n += 1;
            Ok((n <= until).then_some(n))
        };
        let work = || |n: usize| n * n;
        let take = |n| {
            all.push(n);
            if all.len() == stop { Err(format!("stopped at {n}")) } else { Ok(()) }
        };
        in_order(NonZero::new(threads).unwrap(), next, work, take)?;
        Ok(all)
    }

    #[test]
    fn results_come_in_order_from_any_number_of_threads() {
        let expected: Vec<usize> = (1..=500).map(|n| n * n).collect();
        for threads in [1, 2, 3, 16] {
            assert_eq!(squares(threads, 500, 501).unwrap(), expected);
            assert_eq!(squares(threads, 0, 1).unwrap(), []);
        }
    }

    #[test]
    fn an_error_ends_all_of_it() {
        for threads in [1, 4] {
            assert_eq!(squares(threads, 500, 7).unwrap_err(), "stopped at 49");
        }
    }
}
