//! The pages of real servers, read as a backend reads them.

mod captures;
