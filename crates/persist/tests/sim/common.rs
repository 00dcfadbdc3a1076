//! What the tests of the simulator share: a medium of a few words, and the set of images after a crash.

#![allow(dead_code, reason = "each test file uses a part")]

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
};

use pmalloc_persist::{
    Medium, Offset, PAGE_BYTES, Span, Word,
    sim::{
        Digest, Domain, ExploreOptions, Report, Sim, SimOptions, explore_eagerly, explore_state,
    },
};

/// Images, each as the values of the words asked for.
pub(crate) type Images = BTreeSet<Vec<u64>>;

/// A medium of one backed page.
pub(crate) fn page(domain: Domain) -> Sim {
    pages(domain, 1)
}

/// A medium of `count` pages that have memory, also after a crash.
pub(crate) fn pages(domain: Domain, count: u64) -> Sim {
    let len_bytes = count * PAGE_BYTES;
    let sim = Sim::new(SimOptions { len_bytes, domain });
    sim.back(Span::new(0, len_bytes)).expect("the capacity suffices");
    sim.sync().expect("no failure is asked for");
    sim
}

/// The word at `index`: words 0 to 7 share a line, 8 to 15 the next, and so on.
pub(crate) fn word(sim: &Sim, index: u64) -> &Word {
    sim.at(Offset::new(index * 8)).expect("the index is in bounds")
}

#[track_caller]
pub(crate) fn put(sim: &Sim, index: u64, value: u64) {
    sim.store(word(sim, index), value);
}

#[track_caller]
pub(crate) fn get(sim: &Sim, index: u64) -> u64 {
    sim.load(word(sim, index))
}

#[track_caller]
pub(crate) fn flush(sim: &Sim, index: u64) {
    sim.flush(Span::new(index * 8, 8));
}

/// What `words` may hold after a crash now, by the lazy explorer.
pub(crate) fn images(sim: &Sim, words: &'static [u64]) -> Images {
    let (images, report) = images_with(sim, words);
    assert_eq!(images.len() as u64, report.classes, "each class is another image");
    images
}

/// What `words` may hold after a crash now, by enumeration.
pub(crate) fn images_eagerly(sim: &Sim, words: &'static [u64]) -> Images {
    let (images, check) = collector(words);
    let report = explore_eagerly(&sim.crash_state(), 1 << 20, check).expect("few images");
    report.assert_clean();
    take(&images)
}

/// What `words` may hold after a crash now, and the report of the lazy explorer.
pub(crate) fn images_with(sim: &Sim, words: &'static [u64]) -> (Images, Report) {
    let (images, check) = collector(words);
    let report = explore_state(&sim.crash_state(), ExploreOptions::default(), check);
    report.assert_clean();
    (take(&images), report)
}

type Check = Box<dyn Fn(&Sim) -> Result<Digest, String> + Send + Sync>;

fn collector(words: &'static [u64]) -> (Arc<Mutex<Images>>, Check) {
    let images = Arc::new(Mutex::new(Images::new()));
    let seen = Arc::clone(&images);
    let check = move |sim: &Sim| {
        let image: Vec<u64> = words.iter().map(|&index| get(sim, index)).collect();
        let digest = Digest::of(&image);
        seen.lock().expect("no panic inside").insert(image);
        Ok(digest)
    };
    (images, Box::new(check))
}

fn take(images: &Mutex<Images>) -> Images {
    std::mem::take(&mut images.lock().expect("no panic inside"))
}

/// Turns literals into images.
pub(crate) fn set<const N: usize, const W: usize>(images: [[u64; W]; N]) -> Images {
    images.into_iter().map(|image| image.to_vec()).collect()
}
