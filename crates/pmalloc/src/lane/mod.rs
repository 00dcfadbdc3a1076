//! Lanes: where a thread writes the records of its operations.
//!
//! A [`Lane`] is a small persistent ring of records with an array of marks that retire them. A session claims
//! one at its first operation and keeps it; [`Lanes`] makes them on demand and hands them out. The last lane
//! of the directory is never claimed: sessions that find no other share it under its lock.
//!
//! Persistent: directory, headers, marks, rings. Volatile, rebuilt at open: cursors, the claims.

mod board;
mod replay;
mod ring;
mod salvage;
mod survey;
mod window;

use pmalloc_persist::{
    Medium, Offset, PAGE_BYTES, Span, Word,
    sync::{Arc, Mutex, MutexGuard, lock},
};

pub(crate) use board::Board;

pub(crate) use replay::{EPOCHS_IN_FLIGHT, LaneImage, Left, replay, write_back, zero_rings};
pub(crate) use ring::{Draft, Lane};
pub(crate) use salvage::{reset_all, salvage};
pub(crate) use survey::{InFlight, in_flight};

use crate::{
    error::{Error, Result},
    layout::{
        geometry::Geometry,
        lane::{LANE_MAGIC, LaneHeader},
        sealed::{checksum, seal},
    },
};

/// A session's right to write records.
#[derive(Debug)]
pub(crate) enum Claim {
    /// A lane of its own.
    Own(Lane),
    /// The shared lane.
    Shared(Arc<Mutex<Lane>>),
}

/// The lanes of a heap.
#[derive(Debug)]
pub(crate) struct Lanes {
    geometry: Geometry,
    pool: Mutex<Pool>,
}

#[derive(Debug)]
struct Pool {
    /// Volatile: lanes that sessions have given back, the next to be claimed last.
    free: Vec<Lane>,
    /// Volatile: lanes that were made before the heap was opened and that no session has claimed yet, and their newest marks;
    /// the next to be claimed last.
    unclaimed: Vec<(u32, u64)>,
    /// Volatile: lanes that the directory does not name, the next to be made last.
    unmade: Vec<u32>,
    /// Volatile: the lane that is shared, once it was needed.
    shared: Option<Arc<Mutex<Lane>>>,
    /// Volatile: what a synchronizer sees, of each lane that was ever claimed.
    boards: Vec<Arc<Board>>,
}

impl Pool {
    /// The cursor of a made lane, whose board is added.
    fn lane(&mut self, geometry: &Geometry, index: u32, newest_mark: u64) -> Lane {
        let board = Arc::new(Board::new(geometry.ring_places));
        self.boards.push(Arc::clone(&board));
        Lane::new(geometry, index, newest_mark, board)
    }
}

impl Lanes {
    /// The lanes of a heap whose directory was replayed as `images`, one per made lane.
    pub(crate) fn new(geometry: Geometry, images: &[LaneImage]) -> Self {
        let mut unmade: Vec<u32> = (0..geometry.lanes).rev().collect();
        unmade.retain(|index| images.iter().all(|image| image.index != *index));
        let shared_index = geometry.lanes - 1;
        let found = images.iter().rev().map(|image| (image.index, image.newest_mark));
        let (shared, unclaimed): (Vec<_>, Vec<_>) =
            found.partition(|(index, _)| *index == shared_index);
        let mut pool =
            Pool { free: Vec::new(), unclaimed, unmade, shared: None, boards: Vec::new() };
        for (index, newest_mark) in shared {
            let lane = pool.lane(&geometry, index, newest_mark);
            pool.shared = Some(Arc::new(Mutex::new(lane)));
        }
        Self { geometry, pool: Mutex::new(pool) }
    }

    /// Adds the boards of all lanes behind the first `boards.len()`, which the caller has, to `boards`. An operation that
    /// marks a lane which is not among them looks at the epoch after this call.
    pub(crate) fn boards(&self, boards: &mut Vec<Arc<Board>>) {
        let pool = lock(&self.pool);
        boards.extend(pool.boards[boards.len()..].iter().cloned());
    }

    /// Claims a lane, making it first if none is free.
    pub(crate) fn claim<M: Medium>(&self, m: &M) -> Result<Claim> {
        let mut pool = lock(&self.pool);
        match pool.free.pop() {
            Some(lane) => Ok(Claim::Own(lane)),
            None => self.claim_new(m, &mut pool),
        }
    }

    fn claim_new<M: Medium>(&self, m: &M, pool: &mut Pool) -> Result<Claim> {
        if let Some((index, newest_mark)) = pool.unclaimed.pop() {
            return Ok(Claim::Own(pool.lane(&self.geometry, index, newest_mark)));
        }
        let shared_index = self.geometry.lanes - 1;
        if let Some(&index) = pool.unmade.last()
            && index != shared_index
        {
            make(m, &self.geometry, index)?;
            pool.unmade.pop();
            return Ok(Claim::Own(pool.lane(&self.geometry, index, 0)));
        }
        self.share(m, pool)
    }

    fn share<M: Medium>(&self, m: &M, pool: &mut Pool) -> Result<Claim> {
        if let Some(shared) = &pool.shared {
            return Ok(Claim::Shared(Arc::clone(shared)));
        }
        let index = self.geometry.lanes - 1;
        make(m, &self.geometry, index)?;
        pool.unmade.retain(|unmade| *unmade != index);
        let shared = Arc::new(Mutex::new(pool.lane(&self.geometry, index, 0)));
        pool.shared = Some(Arc::clone(&shared));
        Ok(Claim::Shared(shared))
    }

    /// Takes a lane back as it is: its number and place go on with the next session.
    pub(crate) fn release(&self, claim: Claim) {
        if let Claim::Own(lane) = claim {
            lock(&self.pool).free.push(lane);
        }
    }

    /// Exchanges a full lane for one that has room for `records`, where `durable` is the durable epoch: one that no session
    /// holds, or a new one, or else the shared one, which may be full, too.
    ///
    /// # Errors
    ///
    /// As [`claim`](Self::claim).
    pub(crate) fn exchange<M: Medium>(
        &self,
        m: &M,
        full: &mut Claim,
        durable: u64,
        records: usize,
    ) -> Result<()> {
        let mut pool = lock(&self.pool);
        let mut with_room = pool.free.iter_mut();
        let with_room = with_room.rposition(|lane| lane.has_room(|| durable, records));
        let fresh = match with_room {
            Some(at) => Claim::Own(pool.free.remove(at)),
            None => self.claim_new(m, &mut pool)?,
        };
        if let Claim::Own(lane) = std::mem::replace(full, fresh) {
            pool.free.insert(0, lane);
        }
        Ok(())
    }
}

impl Claim {
    /// The lane; its lock, if it is shared, is kept in `held`.
    #[inline(always)]
    pub(crate) fn lane<'c, 'h>(
        &'c mut self,
        held: &'h mut Option<MutexGuard<'c, Lane>>,
    ) -> &'h mut Lane
    where
        'c: 'h,
    {
        match self {
            Self::Own(lane) => lane,
            Self::Shared(lane) => held.insert(lock(lane)),
        }
    }
}

/// The directory word of lane `index`.
pub(super) fn directory_word(geometry: &Geometry, index: u32) -> Offset<Word> {
    geometry.directory().nth(u64::from(index)).expect("the directory lies inside the heap")
}

/// What the directory word of a made lane holds.
pub(super) fn directory_value(geometry: &Geometry, index: u32) -> u64 {
    seal(geometry.lane_span(index).start / PAGE_BYTES)
}

/// Makes lane `index`: memory, zeros, header, and only then its directory word.
fn make<M: Medium>(m: &M, geometry: &Geometry, index: u32) -> Result<()> {
    let span = geometry.lane_span(index);
    m.back(span).map_err(Error::backing("backing a lane"))?;
    zero(m, span)?;
    let header: &LaneHeader = m.at(Offset::new(span.start))?;
    m.store(&header.magic, LANE_MAGIC);
    m.store(&header.index, u64::from(index));
    m.store(&header.checksum, header_checksum(m, header, span.start));
    // CRASH: until the fence any part of header and zeros may be durable. The directory word is not written
    // yet, so the lane does not exist, and the next making starts over.
    m.persist(span);
    let word = m.at(directory_word(geometry, index))?;
    m.store(word, directory_value(geometry, index));
    // CRASH: the word is one atomic store: the lane exists, whole and empty, or not at all.
    m.flush_of(word);
    m.fence();
    Ok(())
}

/// Checksum of a lane header that stands at byte `place`.
pub(super) fn header_checksum<M: Medium>(m: &M, header: &LaneHeader, place: u64) -> u64 {
    let words = [
        m.load(&header.magic),
        m.load(&header.index),
        m.load(&header.position[0]),
        m.load(&header.position[1]),
        m.load(&header.position[2]),
        m.load(&header.reserved[0]),
        m.load(&header.reserved[1]),
    ];
    checksum(&words, place)
}

/// Stores zero into every word of `span` that is not zero, without flushing.
fn zero<M: Medium>(m: &M, span: Span) -> Result<()> {
    for word in m.region().array::<Word>(Offset::new(span.start), span.len / 8)? {
        if m.load(word) != 0 {
            m.store(word, 0);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use pmalloc_persist::Anon;

    use super::*;
    use crate::layout::{
        lane::{NUMBER_MAX, Op},
        slot::Version,
        state::Policy,
    };

    /// Lanes of a heap that has four, the last one for sharing, in memory that holds `garbage` where lanes are made.
    fn lanes(garbage: u64) -> (Anon, Geometry, Lanes) {
        let geometry = Geometry { lanes: 4, ..crate::tests::small_geometry() };
        let memory = Anon::new(geometry.heap_bytes());
        for index in 0..geometry.lanes {
            let span = geometry.lane_span(index);
            memory.back(span).expect("memory");
            let words = memory.region().array::<Word>(Offset::new(span.start), span.len / 8);
            words.expect("inside").iter().for_each(|word| memory.store(word, garbage));
        }
        let lanes = Lanes::new(geometry, &[]);
        (memory, geometry, lanes)
    }

    fn index(claim: &mut Claim) -> u32 {
        claim.lane(&mut None).index()
    }

    #[test]
    fn lanes_are_made_one_by_one_and_the_last_one_is_shared() {
        let (m, geometry, lanes) = lanes(u64::MAX);
        let mut claims: Vec<Claim> = (0..5).map(|_| lanes.claim(&m).expect("room")).collect();
        assert_eq!(claims.iter_mut().map(index).collect::<Vec<_>>(), [0, 1, 2, 3, 3]);
        let [.., Claim::Shared(one), Claim::Shared(other)] = &claims[..] else {
            panic!("{claims:?}")
        };
        assert!(Arc::ptr_eq(one, other));
        for index in 0..geometry.lanes {
            let span = geometry.lane_span(index);
            let word = m.at(directory_word(&geometry, index)).expect("inside");
            assert_eq!(m.load(word), seal(span.start / PAGE_BYTES));
            let header: &LaneHeader = m.at(Offset::new(span.start)).expect("inside");
            assert_eq!(m.load(&header.index), u64::from(index));
            assert_eq!(m.load(&header.checksum), header_checksum(&m, header, span.start));
            let marks = ring::marks_offset(span.start);
            let words = m.region().array::<Word>(Offset::new(marks), (span.end() - marks) / 8);
            assert!(words.expect("inside").iter().all(|word| m.load(word) == 0));
        }
        lanes.release(claims.swap_remove(1));
        lanes.release(claims.pop().expect("a shared one"));
        assert_eq!(index(&mut lanes.claim(&m).expect("room")), 1);
        assert_eq!(index(&mut lanes.claim(&m).expect("room")), 3, "no lane is left");
    }

    #[test]
    fn a_lane_begins_again_after_its_last_number() {
        let (m, geometry, lanes) = lanes(0);
        let Claim::Own(mut lane) = lanes.claim(&m).expect("room") else { panic!("it is its own") };
        let draft =
            Draft { op: Op::FreeSmall, block: 64, pages: 0, slot: 8, version: Version::default() };
        lane.set_number(NUMBER_MAX - 2);
        lane.retire(&m);
        let left = Left { is_closed: false, policy: Policy::Eager, durable: 0 };
        for number in [NUMBER_MAX - 1, NUMBER_MAX, 1, 2] {
            lane.renew_if_used_up(&m);
            lane.record(&m, &[draft]);
            let image = &replay(&m, &geometry, left).expect("whole")[0];
            assert_eq!(image.live.iter().map(|record| record.number).collect::<Vec<_>>(), [number]);
            lane.retire(&m);
            let image = &replay(&m, &geometry, left).expect("whole")[0];
            assert_eq!((image.newest_mark, image.operations()), (number, 0));
        }
    }
}
