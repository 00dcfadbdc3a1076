//! Random operations, appends in flight and reopenings against the model.

use proptest::prelude::*;

use super::*;

/// What one step does; pages and logs are taken modulo what there is.
#[derive(Debug, Clone)]
enum Step {
    Alloc { log: u32, start: u32, pages: u32 },
    Free { nth: usize },
    Pend { log: u32, start: u32 },
    PendFree { nth: usize },
    Commit { nth: usize },
    Cancel { log: u32 },
    Fast { log: u32 },
    Compact { log: u32 },
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    let log = 0..2_u32;
    let nth = 0..64_usize;
    prop_oneof![
        6 => (log.clone(), 0..64_u32, 1..5_u32)
            .prop_map(|(log, start, pages)| Step::Alloc { log, start, pages }),
        6 => nth.clone().prop_map(|nth| Step::Free { nth }),
        2 => (log.clone(), 0..64_u32).prop_map(|(log, start)| Step::Pend { log, start }),
        2 => nth.clone().prop_map(|nth| Step::PendFree { nth }),
        4 => nth.prop_map(|nth| Step::Commit { nth }),
        1 => log.clone().prop_map(|log| Step::Cancel { log }),
        1 => log.clone().prop_map(|log| Step::Fast { log }),
        1 => log.prop_map(|log| Step::Compact { log }),
        1 => Just(Step::Reopen),
    ]
}

/// A fixture and the appends in flight.
struct Run {
    fixture: Fixture,
    pending: Vec<Append>,
}

impl Run {
    /// Whether no extent, held or on its way, touches the pages.
    fn is_free(&self, start: u32, pages: u32) -> bool {
        let wanted = PageRange::new(Page(start), pages);
        let held = self.fixture.model.values().map(|held| held.extent.range);
        let taken = held.chain(self.pending.iter().map(|append| append.extent.range));
        wanted.end() <= 64
            && taken.into_iter().all(|range| {
                range.end() <= u64::from(start) || wanted.end() <= u64::from(range.start.0)
            })
    }

    /// The `nth` extent that nobody is freeing.
    fn freeable(&self, nth: usize) -> Option<u32> {
        let freeing =
            |start: &u32| self.pending.iter().any(|append| append.extent.range.start.0 == *start);
        let starts: Vec<u32> =
            self.fixture.model.keys().copied().filter(|start| !freeing(start)).collect();
        starts.get(nth % starts.len().max(1)).copied()
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Alloc { log, start, pages } if self.is_free(start, pages) => {
                self.fixture.alloc(LogId(log), start, pages);
            }
            Step::Pend { log, start } if self.is_free(start, 1) => {
                let book = &self.fixture.book;
                let append = book.reserve_alloc(&self.fixture.m, LogId(log), extent(start, 1));
                self.pending.push(append.unwrap());
            }
            Step::Free { nth } => {
                if let Some(start) = self.freeable(nth) {
                    self.fixture.free(start);
                }
            }
            Step::PendFree { nth } => {
                if let Some(start) = self.freeable(nth) {
                    self.pending.push(self.fixture.reserve_free(start));
                }
            }
            Step::Commit { nth } if !self.pending.is_empty() => {
                let append = self.pending.remove(nth % self.pending.len());
                self.fixture.finish(append);
            }
            Step::Cancel { log } => {
                while let Some(nth) = self.pending.iter().position(|a| a.log == LogId(log)) {
                    self.fixture.book.cancel(self.pending.remove(nth));
                }
            }
            Step::Fast { log } => self.fixture.collect_fast(LogId(log)),
            Step::Compact { log } => {
                let busy = self.pending.iter().any(|append| append.log == LogId(log));
                let wanted = if busy { Compacted::Busy } else { Compacted::Done };
                let done = self.fixture.book.compact(&self.fixture.m, LogId(log)).unwrap();
                assert_eq!(done, wanted);
            }
            Step::Reopen => {
                while let Some(append) = self.pending.pop() {
                    self.fixture.finish(append);
                }
                self.fixture.reopen();
            }
            Step::Alloc { .. } | Step::Pend { .. } | Step::Commit { .. } => {}
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn behaves_like_a_map_of_extents(steps in proptest::collection::vec(step(), 0..300)) {
        let mut run = Run { fixture: Fixture::new(), pending: Vec::new() };
        let mut newest = [0; 2];
        for step in &steps {
            run.step(step);
            if let Step::Reopen = step {
                // A number of a cancelled place at the end may be used again: nothing was written.
                newest = [0; 2];
            }
            for (log, newest) in (0..).zip(&mut newest) {
                let next = run.fixture.next(LogId(log));
                prop_assert!(next >= *newest, "sequence numbers fall back");
                *newest = next;
            }
            let free = run.fixture.book.pool.free();
            let chunks = run.fixture.book.stats().chunks;
            prop_assert_eq!(u64::from(free) + chunks, 64, "a chunk is lost");
        }
        run.step(&Step::Reopen);
    }
}
