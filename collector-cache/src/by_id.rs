//! What writers keep of each entry, by its id.

use std::ops::{Index, IndexMut};

/// An array by the ids of entries.
///
/// It grows by an eighth, because an array that doubles stands half empty just after.
pub(crate) struct ById<T>(Vec<T>);

impl<T> Default for ById<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: Default> ById<T> {
    /// Puts what is kept of an entry, in place of what was kept of a former one with this id.
    pub(crate) fn set(&mut self, id: u32, value: T) {
        let place = id as usize;
        while self.0.len() <= place {
            push(&mut self.0, T::default());
        }
        self.0[place] = value;
    }
}

impl<T> ById<T> {
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn is_full(&self) -> bool {
        self.0.len() == self.0.capacity()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.iter()
    }
}

impl<T> Index<u32> for ById<T> {
    type Output = T;

    fn index(&self, id: u32) -> &T {
        &self.0[id as usize]
    }
}

impl<T> IndexMut<u32> for ById<T> {
    fn index_mut(&mut self, id: u32) -> &mut T {
        &mut self.0[id as usize]
    }
}

/// Pushes onto a list that grows by an eighth.
pub(crate) fn push<T>(list: &mut Vec<T>, value: T) {
    if list.len() == list.capacity() {
        list.reserve_exact((list.len() / 8).max(4));
    }
    list.push(value);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_grows_by_an_eighth_and_says_before_that_it_will() {
        let mut list = ById::default();
        let (mut times, mut told) = (0, 0);
        for id in 0..10_000_u32 {
            let (full, before) = (list.is_full(), list.0.capacity());
            list.set(id, u64::from(id));
            let grows = list.0.capacity() > before;
            told += usize::from(full == grows);
            times += usize::from(grows);
            let spare = list.0.capacity() - list.len();
            assert!(spare <= (list.len() / 8).max(4), "{spare} places are spare of {id}");
        }
        assert_eq!(told, 10_000);
        assert!(times < 80, "it has grown {times} times");
    }
}
