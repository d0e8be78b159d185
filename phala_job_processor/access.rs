//! Who may do what, and in which mode.

use ink::primitives::AccountId;
use ink::storage::{Lazy, Mapping};

use crate::ensure::ensure;
use crate::errors::{Error, Result};
use crate::events::{AdminChanged, AdminProposed, ModeChanged, RoleGranted, RoleRevoked};
use crate::types::{Mode, Role};

/// The admin, the roles and the mode.
///
/// Mode and admin live in the contract's own cell, the rest has cells of its own.
#[ink::storage_item]
#[derive(Debug)]
pub struct Access {
    pub(crate) mode: Mode,
    pub(crate) admin: AccountId,
    pub(crate) proposed_admin: Lazy<Option<AccountId>>,
    pub(crate) roles: Mapping<(AccountId, Role), ()>,
}

impl Access {
    /// Makes `admin` the only account that may do anything but submit, in mode `Running`.
    pub fn new(admin: AccountId) -> Self {
        Self {
            mode: Mode::Running,
            admin,
            proposed_admin: Lazy::new(),
            roles: Mapping::new(),
        }
    }

    /// The mode.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Who grants roles and sets parameters.
    pub fn admin(&self) -> AccountId {
        self.admin
    }

    /// Whether `account` has `role`. The admin has a role only if it was granted.
    pub fn has_role(&self, account: AccountId, role: Role) -> bool {
        self.roles.contains((account, role))
    }

    /// Checks that `caller` is the admin.
    ///
    /// # Errors
    ///
    /// `NotAdmin` if it is not.
    pub fn ensure_admin(&self, caller: AccountId) -> Result<()> {
        ensure!(self.admin == caller, Error::NotAdmin);
        Ok(())
    }

    /// Checks that `caller` has `role`.
    ///
    /// # Errors
    ///
    /// `MissingRole` if it has not.
    pub fn ensure_role(&self, caller: AccountId, role: Role) -> Result<()> {
        ensure!(self.has_role(caller, role), Error::MissingRole);
        Ok(())
    }

    /// Checks that jobs may be submitted.
    ///
    /// # Errors
    ///
    /// `WrongMode` unless the mode is `Running`.
    pub fn ensure_submitting(&self) -> Result<()> {
        ensure!(self.mode == Mode::Running, Error::WrongMode);
        Ok(())
    }

    /// Checks that submitted jobs may be finished.
    ///
    /// # Errors
    ///
    /// `WrongMode` unless the mode is `Running` or `Draining`.
    pub fn ensure_finishing(&self) -> Result<()> {
        ensure!(self.mode != Mode::Halted, Error::WrongMode);
        Ok(())
    }

    /// Checks that the code may be replaced.
    ///
    /// # Errors
    ///
    /// `WrongMode` unless the mode is `Halted`.
    pub fn ensure_halted(&self) -> Result<()> {
        ensure!(self.mode == Mode::Halted, Error::WrongMode);
        Ok(())
    }

    /// Gives `account` the role; `None` if it had it already.
    ///
    /// # Errors
    ///
    /// `NotAdmin` if `caller` is not the admin.
    pub fn grant_role(
        &mut self,
        caller: AccountId,
        account: AccountId,
        role: Role,
    ) -> Result<Option<RoleGranted>> {
        self.ensure_admin(caller)?;
        if self.has_role(account, role) {
            return Ok(None);
        }
        self.roles.insert((account, role), &());
        Ok(Some(RoleGranted { account, role }))
    }

    /// Takes the role from `account`; `None` if it did not have it.
    ///
    /// # Errors
    ///
    /// `NotAdmin` if `caller` is not the admin.
    pub fn revoke_role(
        &mut self,
        caller: AccountId,
        account: AccountId,
        role: Role,
    ) -> Result<Option<RoleRevoked>> {
        self.ensure_admin(caller)?;
        if !self.has_role(account, role) {
            return Ok(None);
        }
        self.roles.remove((account, role));
        Ok(Some(RoleRevoked { account, role }))
    }

    /// Lets `proposed` become admin by accepting; replaces an earlier proposal.
    ///
    /// # Errors
    ///
    /// `NotAdmin` if `caller` is not the admin.
    pub fn propose_admin(
        &mut self,
        caller: AccountId,
        proposed: AccountId,
    ) -> Result<AdminProposed> {
        self.ensure_admin(caller)?;
        self.proposed_admin.set(&Some(proposed));
        Ok(AdminProposed { proposed })
    }

    /// Makes `caller` the admin. Roles stay as they are.
    ///
    /// # Errors
    ///
    /// `NoPendingAdmin` if the admin did not propose `caller`.
    pub fn accept_admin(&mut self, caller: AccountId) -> Result<AdminChanged> {
        ensure!(
            self.proposed_admin.get_or_default() == Some(caller),
            Error::NoPendingAdmin
        );
        let previous = self.admin;
        self.admin = caller;
        self.proposed_admin.set(&None);
        Ok(AdminChanged {
            previous,
            admin: caller,
        })
    }

    /// Changes the mode: the admin to any other, a guardian only towards `Halted`.
    ///
    /// # Errors
    ///
    /// `MissingRole` if `caller` is neither the admin nor a guardian.
    /// `WrongMode` if the mode is `mode` already.
    /// `NotAdmin` if a guardian asks for a mode further from `Halted`.
    pub fn set_mode(&mut self, caller: AccountId, mode: Mode) -> Result<ModeChanged> {
        let is_admin = self.admin == caller;
        if !is_admin {
            self.ensure_role(caller, Role::Guardian)?;
        }
        ensure!(mode != self.mode, Error::WrongMode);
        ensure!(is_admin || mode > self.mode, Error::NotAdmin);
        self.mode = mode;
        Ok(ModeChanged { mode })
    }
}
