//! Goal: a process that is killed and a loss of power after it, in the next process's recovery or behind it, lose no more
//! than either alone: an open relies on nothing that only the cache holds.
//!
//! Method: a first process dies at each of its stores in turn: what it stored is seen, but only what it flushed and fenced
//! is durable. A second one opens the heap and works in it. Every image that a loss of power can leave from the open on is
//! recovered; it must hold what stood before or behind the operation that the first process died in, and the same as the
//! second process found as soon as that had opened the heap. In a further test a process between the two dies in its
//! recovery, in another the first one while it creates the heap. Each process may ask for a policy of its own, so that the
//! heap changes it over what the dead have left.

// The schedule tester owns the threads there.
#![cfg(not(shuttle))]

use crate::common::shared::Shared;
use std::{
    io,
    mem::ManuallyDrop,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use crate::common::{fill, layout, options};
use pmalloc::{
    Error, Heap, HeapOptions, Policy, Session, Slot,
    persist::{
        Claim, ClaimError, Medium, Region, Span, Word,
        sim::{Digest, Domain, ExploreOptions, Explorer, Report, Sim, SimOptions},
    },
};

const DOMAINS: [Domain; 2] = [Domain::Line64, Domain::Word8];

const POLICIES: [Policy; 2] = [Policy::Eager, Policy::Batched];

/// What a process that opens a heap may ask for.
const ASKED: [Option<Policy>; 3] = [None, Some(Policy::Eager), Some(Policy::Batched)];

/// Slots of the array that the first process works on, and that of the second.
const SLOTS: usize = 8;

/// Steps from one sync to the next.
const STEPS_TO_SYNC: usize = 4;

/// Pairs of an allocation and its free that bring the bookkeeping log to be copied.
const PAIRS: usize = 11;

/// A medium whose process dies: from then on it changes nothing.
#[derive(Debug, Clone)]
struct Mortal {
    sim: Sim,
    /// Stores until death.
    left: Arc<AtomicU64>,
}

impl Mortal {
    fn is_dead(&self) -> bool {
        self.left.load(Ordering::Relaxed) == 0
    }

    /// Counts a store; false if it is not made any more.
    fn stores(&self) -> bool {
        let left = self.left.load(Ordering::Relaxed);
        self.left.store(left.saturating_sub(1), Ordering::Relaxed);
        left > 0
    }
}

// SAFETY: all is passed on to the simulator, but for the stores of the dead, which look at nothing any more; 5. as the
// simulator: who comes after the dead uses none of their references.
unsafe impl Medium for Mortal {
    fn region(&self) -> &Region {
        self.sim.region()
    }
    fn len(&self) -> u64 {
        self.sim.len()
    }
    fn load(&self, word: &Word) -> u64 {
        self.sim.load(word)
    }
    fn store(&self, word: &Word, value: u64) {
        if self.stores() {
            self.sim.store(word, value);
        }
    }
    fn compare_exchange(&self, word: &Word, current: u64, new: u64) -> Result<u64, u64> {
        if self.stores() { self.sim.compare_exchange(word, current, new) } else { Ok(current) }
    }
    fn fetch_or(&self, word: &Word, bits: u64) -> u64 {
        if self.stores() { self.sim.fetch_or(word, bits) } else { self.sim.load(word) }
    }
    fn fetch_and(&self, word: &Word, bits: u64) -> u64 {
        if self.stores() { self.sim.fetch_and(word, bits) } else { self.sim.load(word) }
    }
    fn flush(&self, span: Span) {
        if !self.is_dead() {
            self.sim.flush(span);
        }
    }
    fn fence(&self) {
        if !self.is_dead() {
            self.sim.fence();
        }
    }
    fn stored(&self, span: Span) {
        self.sim.stored(span);
    }
    fn settle(&self, span: Span) {
        self.sim.settle(span);
    }
    fn back(&self, span: Span) -> io::Result<()> {
        self.sim.back(span)
    }
    fn ensure(&self, spans: &[Span]) -> io::Result<()> {
        self.sim.ensure(spans)
    }
    fn punch(&self, span: Span) -> io::Result<()> {
        if self.is_dead() { Ok(()) } else { self.sim.punch(span) }
    }
    fn sync(&self) -> io::Result<()> {
        if self.is_dead() { Ok(()) } else { self.sim.sync() }
    }
    fn occupied_bytes(&self) -> io::Result<u64> {
        self.sim.occupied_bytes()
    }
    fn now(&self) -> Duration {
        self.sim.now()
    }
    fn claim(&self) -> Result<Claim, ClaimError> {
        self.sim.claim()
    }
}

/// What the first process does.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// Fills a slot with a block of that size.
    Fill(usize, usize),
    /// Empties a slot.
    Empty(usize),
    /// Gives back all that is free.
    Trim,
}

/// Fills and empties a slot until the log is copied; before and behind that it makes and gives back slabs.
fn steps() -> Vec<Step> {
    let first = [
        Step::Fill(0, 200),
        Step::Fill(1, 20_000),
        Step::Fill(2, 33_000),
        Step::Empty(1),
        Step::Fill(1, 3000),
        Step::Empty(0),
    ];
    let pairs = [Step::Fill(3, 20_000), Step::Empty(3)].repeat(PAIRS);
    let last = [Step::Empty(1), Step::Trim, Step::Fill(5, 16)];
    [&first[..], &pairs, &last].concat()
}

/// The sizes of the blocks that the slots own.
type State = [Option<usize>; SLOTS];

/// The state after each number of steps.
fn states() -> Vec<State> {
    let mut states = vec![State::default()];
    for step in steps() {
        let mut state = *states.last().expect("never empty");
        match step {
            Step::Fill(at, size) => state[at] = Some(size),
            Step::Empty(at) => state[at] = None,
            Step::Trim => {}
        }
        states.push(state);
    }
    states
}

fn perform(
    heap: &Heap<Mortal>,
    session: &mut Session<Mortal>,
    slots: &[Slot],
    step: Step,
) -> Result<(), Error> {
    match step {
        Step::Fill(at, size) => session.alloc_init(&slots[at], layout(size), fill(at)),
        Step::Empty(at) => session.free_from(&slots[at]),
        Step::Trim => heap.trim().map(drop),
    }
}

/// Runs `process` on `sim`; it is killed at its `nth` store after it has called the function that it gets. Returns whether
/// it was.
///
/// Each process is a thread: no fence of a later one waits for what it flushed.
fn kill(
    sim: &Sim,
    nth: u64,
    process: impl FnOnce(Mortal, &dyn Fn()) -> Result<(), Error> + Send,
) -> bool {
    let mortal = Mortal { sim: sim.clone(), left: Arc::new(AtomicU64::new(u64::MAX)) };
    let left = Arc::clone(&mortal.left);
    let start = || left.store(nth, Ordering::Relaxed);
    let life = std::panic::AssertUnwindSafe(|| process(mortal, &start));
    let life = || std::panic::catch_unwind(life);
    let outcome = std::thread::scope(|scope| scope.spawn(life).join().expect("caught"));
    let was_killed = left.load(Ordering::Relaxed) == 0;
    // One that sees none of its own stores may find its state broken, but it is dead.
    assert!(matches!(outcome, Ok(Ok(()))) || was_killed, "only the dead fail: {outcome:?}");
    was_killed
}

/// The options of a process that asks for this policy, or for none.
fn asking(policy: Option<Policy>) -> HeapOptions {
    match policy {
        Some(policy) => options().policy(policy),
        None => options(),
    }
}

/// Works in a new heap. Returns the states between which it was killed at its `nth` store, or `None` if it lived.
fn kill_at_work(sim: &Sim, policy: Policy, nth: u64) -> Option<[State; 2]> {
    let returned = AtomicUsize::new(0);
    let was_killed = kill(sim, nth, |mortal, start| {
        let heap = options().policy(policy).create_shared(mortal.clone())?;
        let heap = ManuallyDrop::new(heap);
        start();
        heap.slots("second", SLOTS as u64)?;
        let slots = heap.slots("first", SLOTS as u64)?;
        // Beside the thread's own session, which made the arrays: it makes a lane of its own.
        let mut session = ManuallyDrop::new(heap.session());
        for (nth, step) in steps().into_iter().enumerate() {
            // What is not durable under Batched multiplies: each word of it may be there or not.
            if nth.is_multiple_of(STEPS_TO_SYNC) {
                heap.sync()?;
            }
            perform(&heap, &mut session, slots, step)?;
            if mortal.is_dead() {
                break;
            }
            returned.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    });
    let states = states();
    let returned = returned.into_inner();
    was_killed.then(|| [states[returned], states[returned + 1]])
}

/// Opens the heap, and is killed at its `nth` store; returns whether it was.
fn kill_at_open(sim: &Sim, asked: Option<Policy>, nth: u64) -> bool {
    kill(sim, nth, |mortal, start| {
        start();
        asking(asked).open_shared(mortal).map(std::mem::forget)
    })
}

/// Opens the heap, and counts the stores that it takes.
fn stores_to_open(sim: &Sim, policy: Policy) -> u64 {
    let mortal = Mortal { sim: sim.clone(), left: Arc::new(AtomicU64::new(u64::MAX)) };
    let left = Arc::clone(&mortal.left);
    let open = || {
        let heap = options().policy(policy).open_shared(mortal).expect("it opens");
        assert_eq!(heap.policy(), policy);
        std::mem::forget(heap);
    };
    std::thread::scope(|scope| scope.spawn(open).join().expect("no panic"));
    u64::MAX - left.load(Ordering::Relaxed)
}

/// What the slots of the first process own.
fn found(heap: &Heap<Sim>) -> Result<State, String> {
    let slots = heap.slots("first", SLOTS as u64).map_err(|error| format!("the root: {error}"))?;
    let guard = heap.pin();
    let mut state = State::default();
    for (at, slot) in slots.iter().enumerate() {
        let Some(bytes) = slot.get(&guard) else { continue };
        let mut wanted = vec![0; 1];
        fill(at)(&mut wanted);
        let sizes = steps().into_iter().filter_map(|step| match step {
            Step::Fill(slot, size) if slot == at => Some(size),
            _ => None,
        });
        let size = sizes.filter(|size| *size <= bytes.len()).max();
        let size = size.ok_or_else(|| format!("slot {at} owns {} bytes", bytes.len()))?;
        if bytes[..size].iter().any(|byte| *byte != wanted[0]) {
            return Err(format!("slot {at} owns other bytes than were written"));
        }
        state[at] = Some(size);
    }
    Ok(state)
}

/// Recovers the heap and expects one of the states `allowed`, and no leak.
fn judge(sim: &Sim, allowed: &[State]) -> Result<Digest, String> {
    let heap =
        options().open_shared(sim.clone()).map_err(|error| format!("it opens not: {error}"))?;
    let state = found(&heap)?;
    if !allowed.contains(&state) {
        return Err(format!("found {state:?}, not one of {allowed:?}"));
    }
    let report = heap.check().map_err(|error| format!("checking: {error}"))?;
    if !report.problems.is_empty() || report.unowned_blocks > 0 {
        return Err(format!("{report:?}"));
    }
    Ok(Digest::of(&state))
}

/// The last process: opens the heap and works in it, while every loss of power is explored.
fn open_and_work(sim: &Sim, asked: Option<Policy>, allowed: &[State]) -> Result<(), String> {
    let expected = Arc::new(Mutex::new(allowed.to_vec()));
    let seen = Arc::clone(&expected);
    let explorer = Explorer::watch(sim, ExploreOptions::default(), move |sim| {
        let allowed = seen.lock().expect("no panic").clone();
        judge(sim, &allowed)
    });
    let heap =
        asking(asked).open_shared(sim.clone()).map_err(|error| format!("it opens not: {error}"))?;
    let heap = ManuallyDrop::new(heap);
    if asked.is_some_and(|asked| asked != heap.policy()) {
        return Err(format!("{asked:?} was asked for, and the heap is {:?}", heap.policy()));
    }
    // Root arrays that are not there yet are made, as the check makes them: by the thread's own session.
    explorer.pause();
    let state = found(&heap)?;
    let slots = heap.slots("second", SLOTS as u64).map_err(|error| format!("the root: {error}"))?;
    explorer.resume();
    if !allowed.contains(&state) {
        return Err(format!("the last process found {state:?}, not one of {allowed:?}"));
    }
    *expected.lock().expect("no panic") = vec![state];
    explorer.crash_point("opened");
    // One session for each lane that there is.
    let mut sessions = ManuallyDrop::new([heap.session(), heap.session()]);
    for (at, size) in [20_000, 200, 9000, 200].into_iter().enumerate() {
        match sessions[at % 2].alloc_to(&slots[at], layout(size)) {
            Ok(()) | Err(Error::OutOfMemory { .. }) => {}
            Err(error) => return Err(format!("allocating {size} bytes: {error}")),
        }
    }
    explorer.crash_point("worked");
    verdict(&explorer.finish())
}

fn verdict(report: &Report) -> Result<(), String> {
    match report.violations.first() {
        Some(violation) => Err(violation.to_string()),
        None if !report.is_exhaustive() => Err(format!("points were sampled: {report}")),
        None => Ok(()),
    }
}

/// Runs the last process, as a thread like all, and adds to `violations` what is wrong.
fn survive(
    sim: &Sim,
    asked: Option<Policy>,
    allowed: &[State],
    violations: &mut Vec<String>,
    killed: &str,
) {
    let last = || open_and_work(sim, asked, allowed);
    let outcome = std::thread::scope(|scope| scope.spawn(last).join().expect("no panic"));
    let told = |what| format!("killed at {killed}, then opened with {asked:?}: {what}");
    violations.extend(outcome.err().map(told));
}

fn medium(domain: Domain) -> Sim {
    Sim::new(SimOptions { len_bytes: options().heap_bytes().expect("valid"), domain })
}

fn assert_none(violations: &[String]) {
    assert!(violations.is_empty(), "{} kills:\n{}", violations.len(), violations.join("\n"));
}

/// A loss of power after a kill at every `step`-th store loses no more than either.
fn lose_power_after_kills(domain: Domain, policy: Policy, step: usize) {
    let mut violations = Vec::new();
    for (nth, asked) in (1..).step_by(step).zip(ASKED.into_iter().cycle()) {
        let sim = medium(domain);
        let Some(allowed) = kill_at_work(&sim, policy, nth) else {
            println!("{} stores", nth - 1);
            break;
        };
        survive(&sim, asked, &allowed, &mut violations, &format!("store {nth}"));
    }
    assert_none(&violations);
}

#[test]
fn a_loss_of_power_after_a_kill_loses_no_more_than_either() {
    lose_power_after_kills(Domain::Line64, Policy::Eager, 1);
}

#[test]
fn so_it_is_of_words() {
    lose_power_after_kills(Domain::Word8, Policy::Eager, 3);
}

/// Much is not flushed when the process dies, and every word of it may be there or not.
#[test]
fn so_it_is_under_batched() {
    lose_power_after_kills(Domain::Line64, Policy::Batched, 37);
}

#[test]
fn so_it_is_of_words_under_batched() {
    lose_power_after_kills(Domain::Word8, Policy::Batched, 97);
}

/// The domains with the other policies.
fn crossed() -> impl Iterator<Item = (Domain, Policy)> {
    DOMAINS.into_iter().zip(POLICIES.into_iter().rev())
}

#[test]
fn so_it_is_if_a_recovery_is_killed_as_well() {
    let mut violations = Vec::new();
    let mut asked = ASKED.into_iter().cycle();
    let mut ask = || asked.next().expect("a circle");
    for (domain, policy) in DOMAINS.into_iter().zip(POLICIES).chain(crossed()) {
        for nth in (1..).step_by(67) {
            let first = medium(domain);
            if kill_at_work(&first, policy, nth).is_none() {
                break;
            }
            for again in (1..).step_by(13) {
                let sim = medium(domain);
                let allowed = kill_at_work(&sim, policy, nth).expect("as before");
                let asked = ask();
                if !kill_at_open(&sim, asked, again) {
                    // It counts on.
                    ask();
                    break;
                }
                let killed = format!(
                    "store {nth} under {policy:?} and, opening with {asked:?}, at store {again}, {domain:?}"
                );
                survive(&sim, ask(), &allowed, &mut violations, &killed);
            }
        }
    }
    assert_none(&violations);
}

/// Stores of the owner record, of the clean flag and of the policy.
const LAST_STORES: u64 = 9 + 1 + 1;

/// The last stores of an open are those by which the heap is marked as open and gets another policy.
#[test]
fn so_it_is_if_the_policy_is_being_changed() {
    let mut violations = Vec::new();
    for (domain, policy) in DOMAINS.into_iter().zip(POLICIES).chain(crossed()) {
        let other = if policy == Policy::Eager { Policy::Batched } else { Policy::Eager };
        for nth in (1..).step_by(97) {
            let first = medium(domain);
            if kill_at_work(&first, policy, nth).is_none() {
                break;
            }
            let stores = stores_to_open(&first, other);
            for again in stores + 1 - LAST_STORES..=stores {
                let sim = medium(domain);
                let allowed = kill_at_work(&sim, policy, nth).expect("as before");
                assert!(kill_at_open(&sim, Some(other), again), "{again} of {stores}");
                let killed = format!(
                    "store {nth} under {policy:?} and, opening with {other:?}, at store {again}, {domain:?}"
                );
                let asked = ASKED[(again % 3) as usize];
                survive(&sim, asked, &allowed, &mut violations, &killed);
            }
        }
    }
    assert_none(&violations);
}

/// Opens what a killed creation left, while every loss of power is explored: if it was a heap once, it is one for ever,
/// and whole.
fn open_new(sim: &Sim) -> Result<(), String> {
    let was_heap = Arc::new(AtomicBool::new(false));
    let must_be = Arc::clone(&was_heap);
    let explorer = Explorer::watch(sim, ExploreOptions::default(), move |sim| {
        match options().open_shared(sim.clone()) {
            Err(Error::NotAHeap { .. }) if !must_be.load(Ordering::Relaxed) => Ok(Digest(0)),
            Err(error) => Err(format!("it opens not: {error}")),
            Ok(heap) => match heap.check() {
                Ok(report) if report.problems.is_empty() => Ok(Digest(1)),
                report => Err(format!("{report:?}")),
            },
        }
    });
    match options().open_shared(sim.clone()) {
        Err(Error::NotAHeap { .. }) => {}
        Err(error) => return Err(format!("it opens not: {error}")),
        Ok(heap) => {
            was_heap.store(true, Ordering::Relaxed);
            explorer.crash_point("opened");
            std::mem::forget(heap);
        }
    }
    verdict(&explorer.finish())
}

#[test]
fn a_heap_whose_creator_was_killed_is_none_or_stays_one() {
    let mut violations = Vec::new();
    for domain in DOMAINS {
        for nth in 1.. {
            let sim = medium(domain);
            let was_killed = kill(&sim, nth, |mortal, start| {
                start();
                asking(ASKED[(nth % 3) as usize]).create_shared(mortal).map(std::mem::forget)
            });
            if !was_killed {
                break;
            }
            let outcome = std::thread::scope(|scope| scope.spawn(|| open_new(&sim)).join());
            let outcome = outcome.expect("no panic");
            violations.extend(outcome.err().map(|what| format!("store {nth}, {domain:?}: {what}")));
        }
    }
    assert_none(&violations);
}
