//! How much an account submits, and what it still has in storage.

use ink::primitives::AccountId;
use ink::storage::Mapping;

use crate::cells::cells_of;
use crate::deadline::has_passed;
use crate::ensure::ensure;
use crate::errors::{Error, Result};
use crate::parameters::Parameters;
use crate::types::Call;

/// What the contract keeps of an account that submits: 16 bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[ink::scale_derive(Encode, Decode, TypeInfo)]
#[cfg_attr(feature = "std", derive(ink::storage::traits::StorageLayout))]
pub struct Account {
    /// Its jobs that were not purged.
    pub live_jobs: u32,
    /// When its current or last window began.
    pub window_start: u64,
    /// How many jobs it submitted in that window.
    pub used: u32,
}

impl Account {
    fn is_window_over(&self, now: u64, parameters: &Parameters) -> bool {
        has_passed(
            self.window_start.saturating_add(parameters.rate_window),
            now,
        )
    }
}

/// The accounts that submit.
#[ink::storage_item]
#[derive(Debug, Default)]
pub struct Accounts {
    pub(crate) cells: Mapping<AccountId, Account>,
}

impl Accounts {
    /// How many jobs `account` may still submit in the window that is current at `now`.
    pub fn left(&self, account: AccountId, now: u64, parameters: &Parameters) -> u32 {
        match self.cells.get(account) {
            Some(cell) if !cell.is_window_over(now, parameters) => {
                parameters.rate_limit.saturating_sub(cell.used)
            }
            _ => parameters.rate_limit,
        }
    }

    /// The caller's cell as it is after one more job. Writes nothing.
    ///
    /// A window begins with the first submit after the last one ended; nothing gives back what was
    /// used.
    ///
    /// # Errors
    ///
    /// `RateLimited` if the caller used up its window.
    /// `Overflow` if a counter is exhausted.
    pub fn charged(&self, call: Call, parameters: &Parameters) -> Result<Account> {
        let cell = match self.cells.get(call.caller) {
            Some(cell) if !cell.is_window_over(call.now, parameters) => cell,
            other => Account {
                live_jobs: other.map_or(0, |cell| cell.live_jobs),
                window_start: call.now,
                used: 0,
            },
        };
        ensure!(cell.used < parameters.rate_limit, Error::RateLimited);
        Ok(Account {
            live_jobs: cell.live_jobs.checked_add(1).ok_or(Error::Overflow)?,
            window_start: cell.window_start,
            used: cell.used.checked_add(1).ok_or(Error::Overflow)?,
        })
    }

    /// Writes a cell that `charged` returned.
    pub fn store(&self, account: AccountId, cell: &Account) {
        cells_of(&self.cells).insert(account, cell);
    }

    /// The caller's cell as it is after one of its jobs was purged. Writes nothing.
    ///
    /// # Errors
    ///
    /// `Overflow` if the cell counts no live job.
    pub fn discharged(&self, caller: AccountId) -> Result<Account> {
        let cell = self.cells.get(caller).unwrap_or_default();
        Ok(Account {
            live_jobs: cell.live_jobs.checked_sub(1).ok_or(Error::Overflow)?,
            ..cell
        })
    }

    /// Writes a cell that `discharged` returned, or removes it when nothing needs it any more.
    pub fn store_or_remove(&self, call: Call, cell: &Account, parameters: &Parameters) {
        if cell.live_jobs == 0 && cell.is_window_over(call.now, parameters) {
            cells_of(&self.cells).remove(call.caller);
        } else {
            cells_of(&self.cells).insert(call.caller, cell);
        }
    }

    /// Removes the caller's cell; does nothing if there is none.
    ///
    /// # Errors
    ///
    /// `AccountInUse` if the caller has live jobs or its window is not over.
    pub fn release(&self, call: Call, parameters: &Parameters) -> Result<()> {
        let Some(cell) = self.cells.get(call.caller) else {
            return Ok(());
        };
        ensure!(
            cell.live_jobs == 0 && cell.is_window_over(call.now, parameters),
            Error::AccountInUse
        );
        cells_of(&self.cells).remove(call.caller);
        Ok(())
    }
}
