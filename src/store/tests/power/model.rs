//! What must be true of a store after a cut, whatever was kept of what was not synced:
//! - it opens, and the same again after that;
//! - no byte that can be read is wrong, and no complete body has another length or digest;
//! - under each key is what was there at some moment since the store last said that all was durable, and what was there
//!   at all of these moments;
//! - what it says it uses is what is there.

use std::collections::{BTreeSet, HashSet};
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::super::copy;
use super::Random;
use super::disk::{Cut, Disk};
use super::seen::{KEYS, KeySeen, Library, Seen, complete_everything, read_everything};
use super::story::{Moment, Story, directory, open, settings_below};
use crate::store::Store;
use crate::store::layout;

/// So many of the last steps are told of a case that fails.
const STEPS_TOLD: usize = 60;

/// Room for everything, so that nothing goes at the next start that was to stay.
const ROOM: u64 = 1 << 30;

/// Which index is found beside the drive.
#[derive(Debug, Clone, Copy)]
enum State {
    Missing,
    /// Copied after so many steps.
    Copied(usize),
}

impl std::fmt::Display for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Missing => f.write_str("no state directory"),
            Self::Copied(steps) => write!(f, "the index as it was after step {steps}"),
        }
    }
}

/// Tells a story and cuts it at `cuts` places. Says what was wrong.
pub(super) async fn check(seed: u64, cuts: usize) -> Vec<String> {
    let story = Story::tell(seed).await;
    let steps = story.recording.steps();
    let copies = story.recording.copies();
    let mut random = Random::new(seed ^ 0x5eed);
    let any = |random: &mut Random| match copies.get(random.below(copies.len())) {
        Some((step, _)) if random.chance(50) => *step,
        _ => random.below(steps.len() + 1),
    };
    let mut places: Vec<usize> = (0..cuts).map(|_| any(&mut random)).collect();
    places.sort_unstable();
    let mut disk = Disk::new(&["drive", "state"]);
    let (mut applied, mut faults) = (0, Vec::new());
    for place in places {
        steps[applied..place].iter().for_each(|step| disk.apply(step));
        applied = place;
        let how = Cut::any(&mut random);
        let before: Vec<_> = copies.iter().filter(|(step, _)| *step <= place).collect();
        let copied = match random.below(3) {
            0 => None,
            1 => before.last(),
            _ => before.get(random.below(before.len())),
        };
        let state = copied.map_or(State::Missing, |(step, _)| State::Copied(*step));
        let root = directory();
        let mut remains = disk.cut(how, &mut random);
        if copied.is_none() {
            remains.names.retain(|name, _| name.starts_with("drive"));
        }
        remains.write_to(root.path());
        if let Some((_, from)) = copied {
            let index = root.path().join("state").join(layout::MIRROR);
            fs::create_dir(&index).unwrap();
            copy(from, &index);
        }
        let two_names = remains.has_two_names();
        let case = Case { story: &story, place, two_names };
        if let Err(fault) = case.hold(root.path()).await {
            let told = case.moments().1.iter().map(Moment::tell).collect::<Vec<_>>().join("\n    ");
            let last = place.saturating_sub(STEPS_TOLD);
            let noted = steps[last..place].iter().zip(last..).map(|(step, number)| format!("{number} {}", step.tell()));
            let noted = noted.collect::<Vec<_>>().join("\n    ");
            let all = steps.len();
            faults
                .push(format!("cut before step {place} of {all}, {state}, {how:?}: {fault}\n    {told}\n    {noted}"));
        }
    }
    faults
}

struct Case<'a> {
    story: &'a Story,
    place: usize,
    /// Whether the cut has left a file under two names: it may count twice then.
    two_names: bool,
}

impl Moment {
    fn tell(&self) -> String {
        format!("[{}..{}] {}", self.begin, self.end, self.done)
    }
}

impl Case<'_> {
    /// The moment when all was durable last, and those from then on that the cut may have seen.
    fn moments(&self) -> (usize, &[Moment]) {
        let moments = &self.story.moments;
        let last = moments.iter().rposition(|moment| moment.durable && moment.end <= self.place).unwrap_or(0);
        let end = moments.iter().rposition(|moment| moment.begin < self.place).unwrap_or(0).max(last);
        (last, &moments[last..=end])
    }

    /// Opens what is left and compares.
    async fn hold(&self, root: &Path) -> Result<(), String> {
        let settings = settings_below(root, ROOM);
        let library = &self.story.library;
        let found = {
            let store = open(&settings).await.map_err(|error| error.to_string())?;
            let found = read_everything(&store, library).await?;
            self.compare(&found)?;
            self.usage(&store, root).await?;
            found
        };
        let store = open(&settings).await.map_err(|error| format!("again: {error}"))?;
        let again = read_everything(&store, library).await.map_err(|error| format!("again: {error}"))?;
        if again != found {
            return Err(format!("opened again it shows\n    {again:?}\n    and not\n    {found:?}"));
        }
        self.usage(&store, root).await.map_err(|error| format!("again: {error}"))?;
        complete_everything(&store, library).await?;
        read_everything(&store, library).await.map_err(|error| format!("completed: {error}"))?;
        self.usage(&store, root).await.map_err(|error| format!("completed: {error}"))
    }

    /// What the store says it uses is what is there, as soon as it has removed what it wants to be rid of.
    async fn usage(&self, store: &Store, root: &Path) -> Result<(), String> {
        let mut outcome = Ok(());
        for _ in 0..10 {
            store.flush().await;
            outcome = usage_now(store, root);
            if outcome.is_ok() || self.two_names {
                return Ok(());
            }
        }
        outcome
    }

    fn compare(&self, found: &Seen) -> Result<(), String> {
        let (last, moments) = self.moments();
        let happened = self.story.moments.iter().filter(|moment| moment.begin < self.place);
        let mut may_be_gone: BTreeSet<usize> = happened.filter_map(|moment| moment.damaged).collect();
        may_be_gone.extend(moments.iter().filter_map(|moment| moment.came_again));
        let evicted = moments.iter().any(|moment| moment.evicted);
        for number in 0..KEYS {
            let found = &found[number];
            let seen: Vec<&KeySeen> = moments.iter().map(|moment| &moment.seen[number]).collect();
            let fault = |text: &str| Err(format!("k{number}: {text}: {found:?}, since moment {last}: {seen:?}"));
            if found.current.len() > 1 {
                return fault("more than one current answer");
            }
            let unreadable = |seen: &KeySeen| {
                seen.current.first().is_none_or(|(content, _)| {
                    // Evicted with what had taken its place not durable yet.
                    let goes = evicted && moments.last().is_some_and(|last| !last.seen[number].shows(*content));
                    goes || may_be_gone.contains(content)
                })
            };
            let allowed =
                |seen: &&&KeySeen| seen.current == found.current || (found.current.is_empty() && unreadable(seen));
            if !seen.iter().any(|seen| allowed(&seen)) {
                return fault("the current answer is none that was there");
            }
            for older in &seen[0].older {
                let is_there = |seen: &KeySeen| {
                    seen.older.contains(older) || seen.current.iter().any(|(content, _)| content == older)
                };
                if seen.iter().all(|seen| is_there(seen)) && !is_there(found) && !may_be_gone.contains(older) {
                    return fault("an older version is lost");
                }
            }
            for id in found.partials.keys() {
                let born = moments.iter().any(|moment| moment.born.is_some_and(|born| born.0 == *id));
                if !born && !seen.iter().any(|seen| seen.partials.contains_key(id)) {
                    return fault(&format!("{id:016x} is there again"));
                }
            }
            for (id, (content, present)) in &seen[0].partials {
                // A copy of a blob that is damaged on the medium is dropped like any other.
                if may_be_gone.contains(content) || present.is_empty() {
                    continue;
                }
                if let Err(text) = self.kept(*id, *content, present, moments, number, found) {
                    return fault(&text);
                }
            }
        }
        Ok(())
    }

    /// Whether the progress of a partial body is there, if it has to be.
    fn kept(
        &self,
        id: u64,
        content: usize,
        present: &[(u64, u64)],
        moments: &[Moment],
        number: usize,
        found: &KeySeen,
    ) -> Result<(), String> {
        let lasting = moments.iter().position(|moment| !moment.seen[number].partials.contains_key(&id));
        let ranges =
            |ranges: &[(u64, u64)]| ranges.iter().flat_map(|(start, end)| *start..*end).collect::<HashSet<u64>>();
        let here = found.partials.get(&id).is_some_and(|(_, readable)| ranges(readable).is_superset(&ranges(present)));
        let complete = found.older.contains(&content) || found.current.iter().any(|(other, _)| *other == content);
        match lasting {
            None if !here => Err(format!("{id:016x} has lost what was durable")),
            Some(end) => {
                let after = &moments[end].seen[number];
                let is_shown = after.older.contains(&content) || after.current.iter().any(|(now, _)| *now == content);
                let completed = is_shown && moments[end].completed.is_some_and(|completed| completed.0 == id);
                let stays = moments[end..].iter().all(|moment| {
                    moment.seen[number].current == after.current
                        && moment.seen[number].older == after.older
                        && moment.damaged != Some(content)
                });
                if completed && stays && !here && !complete {
                    return Err(format!("{id:016x} was durable, then completed, and is lost"));
                }
                Ok(())
            }
            None => Ok(()),
        }
    }
}

/// The same at one moment.
fn usage_now(store: &Store, root: &Path) -> Result<(), String> {
    let mut files: Vec<(u64, String)> = Vec::new();
    collect(&root.join("drive"), &mut files);
    let real: u64 = files.iter().map(|(size, _)| size).sum();
    let used = store.usage()[0].used;
    if used.abs_diff(real) > files.len() as u64 * 4096 {
        return Err(format!("{used} bytes used, {real} there: {files:?}"));
    }
    Ok(())
}

/// The files with content: real size and name.
fn collect(directory: &Path, files: &mut Vec<(u64, String)>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        // What is being removed is there no more.
        let Ok(meta) = fs::metadata(&path) else { continue };
        let name = path.display().to_string();
        let counts = ["/blobs/", "/quarantine/", "/partial/"].iter().any(|part| name.contains(part));
        if meta.is_dir() {
            collect(&path, files);
        } else if counts && !name.ends_with(".map") && !name.ends_with(".reason") {
            files.push((meta.blocks() * 512, name));
        }
    }
}

/// The bodies of a story are what they should be.
#[test]
fn the_bodies_of_a_story_differ() {
    let library = Library::new(3);
    let digests: HashSet<_> = (0..library.len()).map(|number| library.digest(number)).collect();
    assert_eq!(digests.len(), library.len());
}
