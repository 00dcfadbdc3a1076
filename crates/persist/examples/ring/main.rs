//! Explores every crash of a persistent ring: in three domains, and in the recoveries from those crashes.
//!
//! Run with `cargo run --release --example ring`. The structure itself is in `ring.rs`; it knows nothing of
//! the simulator. What is needed to explore it: a model of what it should hold, and a check that recovers it
//! and compares.

mod ring;

use std::{
    error::Error,
    sync::{Arc, Mutex},
    time::Instant,
};

use pmalloc_persist::{
    Medium,
    sim::{Digest, Domain, ExploreOptions, Explorer, Report, Sim, SimOptions},
};
use ring::{BYTES, PLACES, Ring};

/// What the ring may hold now: the values before the operation in progress, or those after it.
#[derive(Debug, Default, Clone)]
struct Model {
    before: Vec<u64>,
    after: Vec<u64>,
}

/// Recovers the ring and compares it with the model; then sees that it still works.
fn check(sim: &Sim, model: &Model) -> Result<Digest, String> {
    let mut ring = Ring::open(sim.clone()).map_err(|error| error.to_string())?;
    let values = ring.values();
    sim.recovered();
    if values != model.before && values != model.after {
        return Err(format!("found {values:?}, expected {model:?}"));
    }
    while ring.pop().is_some() {}
    let pushed = (0..=PLACES).filter(|&value| ring.push(value)).count() as u64;
    if pushed != PLACES {
        return Err(format!("an empty ring took {pushed} values"));
    }
    Ok(Digest::of(&values))
}

/// Pushes and pops `steps` times, following a small pseudo-random sequence.
fn explore(domain: Domain, nesting: u32, steps: u64) -> Result<Report, Box<dyn Error>> {
    let sim = Sim::new(SimOptions { len_bytes: BYTES.len, domain });
    sim.back(BYTES)?;
    let mut ring = Ring::open(sim.clone())?;

    let model = Arc::new(Mutex::new(Model::default()));
    let seen = Arc::clone(&model);
    let options = ExploreOptions { nesting, ..ExploreOptions::default() };
    let explorer = Explorer::watch(&sim, options, move |sim| {
        // Not locked while the check runs: checks after a crash in recovery run inside it.
        let model = seen.lock().expect("no one panics while holding the model").clone();
        check(sim, &model)
    });

    for step in 0..steps {
        let is_push = (step * step + step / 3) % 5 < 3;
        {
            let mut model = model.lock().expect("as above");
            let mut after = model.before.clone();
            match is_push {
                true if after.len() as u64 == PLACES => {}
                true => after.push(step << 20 | step),
                false => drop((!after.is_empty()).then(|| after.remove(0))),
            }
            model.after = after;
        }
        if is_push {
            ring.push(step << 20 | step);
        } else {
            ring.pop();
        }
        {
            let mut model = model.lock().expect("as above");
            model.before = model.after.clone();
        }
        explorer.crash_point("operation returned");
    }
    Ok(explorer.finish())
}

fn main() -> Result<(), Box<dyn Error>> {
    for domain in [Domain::Line64, Domain::Word8, Domain::Eadr] {
        for (nesting, steps) in [(0, 20_000), (2, 2_000)] {
            let start = Instant::now();
            let report = explore(domain, nesting, steps)?;
            let runs = report.classes + report.nested_classes;
            let rate = runs as f64 / start.elapsed().as_secs_f64();
            println!("{domain:?}, nesting {nesting}: {report}; {rate:.0} classes/s");
            report.assert_clean();
        }
    }
    Ok(())
}
