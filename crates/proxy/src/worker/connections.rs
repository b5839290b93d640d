//! The open connections of one listener on one worker, so that they can be asked to finish.
//!
//! A connection registers its task once; being asked costs it nothing until it is.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    rc::Rc,
    task::{Context, Waker},
};

use super::limits::{Failure, Seat};

#[derive(Default)]
pub struct Connections {
    open: RefCell<HashMap<u64, Entry>>,
}

struct Entry {
    /// Of the filter chain that serves it.
    chain: u64,
    draining: Rc<Cell<bool>>,
    waker: Option<Waker>,
}

impl Connections {
    pub fn len(&self) -> usize {
        self.open.borrow().len()
    }

    pub fn is_empty(&self) -> bool {
        self.open.borrow().is_empty()
    }

    /// Adds a connection, with its place within the limits.
    pub fn add(self: &Rc<Self>, id: u64, seat: Seat) -> ConnectionHandle {
        let draining = Rc::new(Cell::new(false));
        let entry = Entry { chain: 0, draining: Rc::clone(&draining), waker: None };
        self.open.borrow_mut().insert(id, entry);
        ConnectionHandle {
            connections: Rc::clone(self),
            id,
            draining,
            registered: Cell::new(false),
            late: Cell::new(false),
            seat,
        }
    }

    /// Asks the connections whose chain `is_gone` to finish.
    pub fn drain(&self, is_gone: impl Fn(u64) -> bool) {
        for entry in self.open.borrow_mut().values_mut() {
            if is_gone(entry.chain) {
                entry.draining.set(true);
                if let Some(waker) = entry.waker.take() {
                    waker.wake();
                }
            }
        }
    }
}

/// One connection's entry; removed on drop.
pub struct ConnectionHandle {
    connections: Rc<Connections>,
    id: u64,
    draining: Rc<Cell<bool>>,
    registered: Cell<bool>,
    late: Cell<bool>,
    seat: Seat,
}

impl ConnectionHandle {
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Counts why the connection ends before it is served.
    pub fn fails(&self, failure: Failure) {
        self.seat.fails(failure);
    }

    pub fn set_chain(&self, fingerprint: u64) {
        if let Some(entry) = self.connections.open.borrow_mut().get_mut(&self.id) {
            entry.chain = fingerprint;
        }
    }

    pub fn drain(&self) {
        self.draining.set(true);
        self.late.set(true);
    }

    /// The connection came when others had been asked to finish already: it has one request to make.
    pub fn is_late(&self) -> bool {
        self.late.get()
    }

    /// The connection should finish. Call [`Self::register`] first from the task that is to be woken.
    pub fn is_draining(&self) -> bool {
        self.draining.get()
    }

    pub fn register(&self, cx: &Context<'_>) {
        if self.registered.replace(true) {
            return;
        }
        if let Some(entry) = self.connections.open.borrow_mut().get_mut(&self.id) {
            entry.waker = Some(cx.waker().clone());
        }
    }
}

impl Drop for ConnectionHandle {
    fn drop(&mut self) {
        self.connections.open.borrow_mut().remove(&self.id);
    }
}
