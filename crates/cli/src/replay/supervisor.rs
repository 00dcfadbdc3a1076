//! Kills workers, and checks what they leave.
//!
//! Half of the kills come from here, at a random moment; half from the worker itself, at a random persist call, every
//! other one of these at a random fence. Each waits until a random number of further steps is done, chosen anew after
//! each kill so that the kills that are left are spread over the rest of the trace. If the trace ends before all kills
//! are made, it begins again on a fresh heap.
//!
//! A quarter of the worker's own kills hit recovery: before anybody looks at the heap that a killed worker
//! left, another one opens it and dies on the way. What the second one leaves is then compared with the
//! journal of the first.

use std::{
    fs::{self, File},
    os::unix::{fs::FileExt, process::ExitStatusExt},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use pmalloc_persist::{MapOptions, Mapped, MediaFile, Medium, Span};

use super::{
    audit::{Stage, audit},
    engine::Trigger,
    heap::{self, Survival},
    journal::{Journal, Shape, Tally},
    progress::Progress,
    report::{Campaign, Recovery},
    run::{Spectator, Verdict},
    setup::Setup,
    worker::open_journal,
};
use crate::{
    args::{Calls, name_of},
    exit::{Code, Failure},
};

/// How often the journal of a running worker is looked at.
const POLL: Duration = Duration::from_micros(100);

/// A kill from here comes this much later than planned at most: a random part of it is waited.
const JITTER_US: u64 = 500;

/// Most persist calls between the planned step and a worker's kill, as a power of two. The synchronizer
/// makes thousands in a row, and each of them shall be hit now and then.
const COUNTDOWN_BITS: u32 = 12;

/// Likewise, if only fences count.
const FENCES_BITS: u32 = 6;

/// So many rounds without a kill show that a trace is too short for one more.
const FRUITLESS_ROUNDS: u32 = 16;

/// Most persist calls until a kill that an earlier round was too short for.
const SHORT_COUNTDOWN: u64 = 4;

/// A worker that does no step for so long hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// Signal number of SIGKILL.
const SIGKILL: i32 = 9;

/// What a kill hits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Target {
    /// A persist call.
    Persist,
    /// A persist call of the recovery from the kill before.
    Recovery,
    /// Whatever is going on.
    Moment,
}

/// The targets of the kills in turn, not drawn, so that each kind gets its share. Recovery comes behind a kill at a
/// persist call, which nearly always leaves operations in flight.
const TARGETS: [Target; 8] = {
    use Target::{Moment, Persist, Recovery};
    [Persist, Recovery, Moment, Persist, Moment, Persist, Moment, Moment]
};

/// How a worker shall end.
#[derive(Debug, Clone, Copy)]
enum Fate {
    /// It is killed from here, some time after so many steps.
    Killed { after_steps: u64, delay: Duration },
    /// It kills itself.
    KillsItself(Trigger),
    /// It kills itself in recovery, at the persist call that `seed` draws.
    DiesInRecovery { seed: u64 },
    /// It lives to the end of the trace.
    Lives,
}

/// How a worker ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// Killed.
    Killed,
    /// At the end of the trace.
    Done,
    /// At a violation, or with one found after it.
    Broken,
}

/// A replay with kills.
pub(super) struct Supervisor<'s> {
    setup: &'s Setup,
    progress: Progress,
    rng: fastrand::Rng,
    kills: u32,
    campaign: Campaign,
    recoveries_ns: Vec<u64>,
    /// What the heap of the present round survives.
    survival: Option<Survival>,
    /// Rounds since the last kill.
    fruitless_rounds: u32,
}

impl<'s> Supervisor<'s> {
    /// A campaign of `kills` kills at moments that the seed determines, as far as a scheduler can be.
    pub(super) fn new(setup: &'s Setup, progress: Progress, kills: u32) -> Self {
        Self {
            setup,
            progress,
            rng: fastrand::Rng::with_seed(setup.manner.mix.seed),
            kills,
            campaign: Campaign::default(),
            recoveries_ns: Vec::new(),
            survival: None,
            fruitless_rounds: 0,
        }
    }

    /// Makes all kills and replays to the end. Returns what the heaps survive; the other figures stand in the
    /// journal.
    pub(super) fn run(mut self) -> Result<(Survival, Campaign), Failure> {
        self.make_journal()?;
        loop {
            self.begin_round()?;
            let mut end = End::Killed;
            while end == End::Killed {
                end = self.segment()?;
            }
            if end == End::Broken || self.campaign.kills >= self.kills {
                break;
            }
            if self.fruitless_rounds >= FRUITLESS_ROUNDS {
                let (made, asked) = (self.campaign.kills, self.kills);
                return Err(Failure::Usage(format!(
                    "the trace is too short for {asked} kills: it ends before, {made} were made"
                )));
            }
        }
        self.campaign.recovery_ms = Recovery::of(self.recoveries_ns);
        Ok((self.survival.expect("a round was begun"), self.campaign))
    }

    fn make_journal(&self) -> Result<(), Failure> {
        let shape = self.setup.shape();
        let create = || {
            let mapped = MediaFile::create(&self.setup.journal_path())?
                .map(&MapOptions::new(shape.len_bytes()))?;
            Ok(mapped)
        };
        let mapped: Mapped = create().map_err(|error: pmalloc_persist::MapError| {
            Failure::Worker(format!("the journal: {error}"))
        })?;
        mapped.back(Span::new(0, shape.len_bytes())).map_err(Failure::io("make the journal"))?;
        mapped.publish().map_err(|error| Failure::Worker(format!("the journal: {error}")))?;
        drop(Journal::create(mapped, shape));
        Ok(())
    }

    /// Makes a fresh heap, which replaces that of the round before.
    fn begin_round(&mut self) -> Result<(), Failure> {
        let path = self.setup.scratch.heap();
        if self.campaign.rounds > 0 {
            fs::remove_file(path).map_err(Failure::io("remove the heap of the last round"))?;
            open_journal(&self.setup.journal_path(), self.setup.shape())?.restart();
        }
        self.campaign.rounds += 1;
        self.fruitless_rounds += 1;
        let heap = heap::create(path, &self.setup.plan, self.setup.flags)?;
        self.survival = Some(heap::survival(&heap));
        heap.close().map_err(Failure::heap(path))
    }

    /// Runs a worker until it ends, and checks the heap it leaves, or that of another one killed in recovery.
    fn segment(&mut self) -> Result<End, Failure> {
        let journal = open_journal(&self.setup.journal_path(), self.setup.shape())?;
        let fate = self.fate(journal.steps());
        // The worker maps it, and a mapping keeps others out.
        drop(journal);
        let end = self.run_worker(fate)?;
        if end == End::Killed && self.target_of(self.campaign.kills + 1) == Some(Target::Recovery) {
            self.kill_recovery()?;
        }
        match end {
            End::Broken => Ok(End::Broken),
            end => self.inspect(end),
        }
    }

    /// Kills the recovery of the heap that a killed worker left.
    fn kill_recovery(&mut self) -> Result<(), Failure> {
        let seed = self.rng.u64(..);
        match self.run_worker(Fate::DiesInRecovery { seed })? {
            End::Killed => self.campaign.add_kill_in_recovery(),
            end => return Err(Failure::Worker(format!("a recovery to be killed ended: {end:?}"))),
        }
        Ok(())
    }

    fn run_worker(&mut self, fate: Fate) -> Result<End, Failure> {
        let mut child = self.spawn(fate)?;
        let end = self.attend(&mut child, fate);
        if end.is_err() {
            // It may be dead already; then there is nothing to kill, but something to wait for.
            let _ = child.kill();
            let _ = child.wait();
        }
        end
    }

    /// The target of kill number `kill`, counted from 0, if so many are to be made.
    fn target_of(&self, kill: u32) -> Option<Target> {
        (kill < self.kills).then(|| TARGETS[kill as usize % TARGETS.len()])
    }

    /// What happens to the next worker, which begins at step `done`.
    fn fate(&mut self, done: u64) -> Fate {
        let Some(target) = self.target_of(self.campaign.kills) else { return Fate::Lives };
        let left = u64::from(self.kills - self.campaign.kills);
        let remaining = self.setup.plan.events().saturating_sub(done);
        let mean = remaining / (left + 1);
        let after_steps = done + 1 + self.rng.u64(0..=mean * 2).min(remaining.saturating_sub(2));
        if self.fruitless_rounds > 1 {
            let countdown = self.rng.u64(1..=SHORT_COUNTDOWN);
            return Fate::KillsItself(Trigger {
                arm_at: after_steps,
                countdown,
                calls: Calls::All,
            });
        }
        if target != Target::Moment {
            let (calls, most_bits) = if self.rng.bool() {
                (Calls::All, COUNTDOWN_BITS)
            } else {
                (Calls::Fences, FENCES_BITS)
            };
            let bits = self.rng.u32(0..=most_bits);
            let countdown = 1 + self.rng.u64(0..1 << bits);
            return Fate::KillsItself(Trigger { arm_at: after_steps, countdown, calls });
        }
        let delay = Duration::from_micros(self.rng.u64(0..JITTER_US));
        Fate::Killed { after_steps, delay }
    }

    fn spawn(&self, fate: Fate) -> Result<Child, Failure> {
        let program = std::env::current_exe().map_err(Failure::io("find this program"))?;
        let setup = self.setup;
        let mut command = Command::new(program);
        command.arg("replay-worker").args(setup.flags.to_args());
        command.arg("--heap").arg(setup.scratch.heap());
        command.arg("--journal").arg(setup.journal_path());
        command.arg("--trace").arg(setup.trace_path());
        command.arg("--order").arg(name_of(&setup.order));
        command.arg("--verification").arg(name_of(&setup.manner.verification));
        command.arg("--publish").arg(setup.manner.mix.percent.to_string());
        command.arg("--seed").arg(setup.manner.mix.seed.to_string());
        match fate {
            Fate::KillsItself(trigger) => {
                command.arg("--arm-at").arg(trigger.arm_at.to_string());
                command.arg("--countdown").arg(trigger.countdown.to_string());
                command.arg("--calls").arg(name_of(&trigger.calls));
            }
            Fate::DiesInRecovery { seed } => {
                command.arg("--die-in-recovery").arg(seed.to_string());
            }
            Fate::Killed { .. } | Fate::Lives => {}
        }
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command.spawn().map_err(Failure::io("start a worker"))
    }

    /// Watches over `child` until it has met its `fate`.
    fn attend(&mut self, child: &mut Child, fate: Fate) -> Result<End, Failure> {
        let peek = Peek::open(self.setup)?;
        let (mut last_steps, mut last_progress) = (0, Instant::now());
        loop {
            if let Some(status) = child.try_wait().map_err(Failure::io("wait for a worker"))? {
                return end_of(status);
            }
            let steps = peek.steps()?;
            if self.progress.tick(steps) == Verdict::Stop {
                return Err(Failure::Interrupted);
            }
            if steps != last_steps {
                (last_steps, last_progress) = (steps, Instant::now());
            } else if last_progress.elapsed() > PATIENCE {
                return Err(Failure::Worker(format!("a worker hangs after {steps} steps")));
            }
            if let Fate::Killed { after_steps, delay } = fate
                && steps >= after_steps
            {
                thread::sleep(delay);
                child.kill().map_err(Failure::io("kill a worker"))?;
                let status = child.wait().map_err(Failure::io("wait for a worker"))?;
                return end_of(status);
            }
            thread::sleep(POLL);
        }
    }

    /// Reopens the heap and compares it with the journal; how the worker ended, unless it left violations.
    fn inspect(&mut self, end: End) -> Result<End, Failure> {
        let path = self.setup.scratch.heap();
        let journal = open_journal(&self.setup.journal_path(), self.setup.shape())?;
        let start = Instant::now();
        let heap = heap::open(path, self.setup.flags)?;
        let recovery_ns = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let stage = if end == End::Done { Stage::AtEnd } else { Stage::AfterKill };
        let findings = audit(&heap, &journal, &self.setup.plan, self.setup.manner, stage)?;
        journal.raise_tally(Tally::PeakHeapBytes, heap.observer().peak_bytes());
        heap.close().map_err(Failure::heap(path))?;
        if end == End::Killed {
            self.fruitless_rounds = 0;
            self.recoveries_ns.push(recovery_ns);
            self.campaign.add_kill(&findings.in_flight, findings.arrays_in_flight);
        }
        self.progress.note(format!("{}/{} kills", self.campaign.kills, self.kills));
        Ok(if findings.violations > 0 { End::Broken } else { end })
    }
}

/// How a worker with this exit status ended.
fn end_of(status: ExitStatus) -> Result<End, Failure> {
    match (status.signal(), status.code()) {
        (Some(SIGKILL), _) => Ok(End::Killed),
        (_, Some(0)) => Ok(End::Done),
        (_, Some(code)) if Code::from_status(code) == Some(Code::Inconsistent) => Ok(End::Broken),
        _ => Err(Failure::Worker(format!("a worker ended by itself: {status}"))),
    }
}

/// A look at the journal of a running worker, which has it mapped.
struct Peek {
    file: File,
    shape: Shape,
}

impl Peek {
    fn open(setup: &Setup) -> Result<Self, Failure> {
        let file = File::open(setup.journal_path()).map_err(Failure::io("look at the journal"))?;
        Ok(Self { file, shape: setup.shape() })
    }

    /// Steps that all threads have done.
    fn steps(&self) -> Result<u64, Failure> {
        let (at, len) = self.shape.positions();
        let mut bytes = vec![0; len];
        self.file.read_exact_at(&mut bytes, at).map_err(Failure::io("look at the journal"))?;
        Ok(self.shape.steps_in(&bytes))
    }
}
