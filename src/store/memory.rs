//! The store that keeps nothing: for development, and for who does without delivery across
//! restarts.

use crate::inbox::batch::{Failure, Store};
use crate::inbox::memory::MemoryRows;
use crate::inbox::rows::{Broken, Rows};

#[derive(Default)]
pub struct Memory(MemoryRows);

impl Store for Memory {
    fn run(
        &mut self,
        work: &mut dyn FnMut(&mut dyn Rows) -> Result<(), Broken>,
    ) -> Result<(), Failure> {
        match work(&mut self.0) {
            Ok(()) => {
                self.0.commit();
                Ok(())
            }
            Err(broken) => {
                self.0.roll_back();
                Err(Failure::NotDone(broken))
            }
        }
    }
}
