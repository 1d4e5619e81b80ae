//! What the pages of each kind of model server mean.
