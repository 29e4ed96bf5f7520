//! Carrying out the plan, as in `instance/tasks.rs`.

use super::{
    event::{Caller, name_of},
    kafka::Request,
    process::{Happening, Process, RESTART_AFTER},
    restorer::Job,
    worker::Order,
    world::World,
};
use crate::membership::holdings::{Action, worker_of};

impl World {
    pub(super) fn hear(&mut self, p: &mut Process, happening: Happening) {
        match happening {
            Happening::Fenced(id, plan) => p.holdings.on_fenced(id, plan),
            Happening::Restored(partition, task) => {
                if p.holdings.on_restored(partition) {
                    self.order(p, partition, Order::Open(partition, task));
                }
            }
            Happening::Cancelled(partition) => p.holdings.on_cancelled(partition),
            Happening::Ready(worker) => p.holdings.on_ready(worker),
            Happening::Running(partition) => p.holdings.on_running(partition),
            Happening::Closed(partition) => p.holdings.on_closed(partition),
            Happening::Ended(worker) => {
                p.workers.remove(&worker);
                for action in p.holdings.on_worker_ended(worker) {
                    self.act(p, action);
                }
                p.restart.insert(worker, self.now + RESTART_AFTER);
                self.wake(p, RESTART_AFTER);
            }
            Happening::Seated | Happening::Published(_) | Happening::Deposed => {}
        }
    }

    pub(super) fn act(&mut self, p: &mut Process, action: Action) {
        self.note(|| format!("{}#{} {action:?}", name_of(p.machine), p.number));
        match action {
            Action::Follow(partition) => self.order_restorer(p, Job::Follow(partition)),
            Action::Restore(partition) => self.order_restorer(p, Job::Restore(partition)),
            Action::Cancel(partition) => self.order_restorer(p, Job::Cancel(partition)),
            Action::Close(partition) => self.order(p, partition, Order::Close(partition)),
            Action::Fence(id, plan) => {
                let delay = self.random.within(1..=self.swarm.fence);
                let request = Request::Init(id.clone());
                self.send_after(delay, p, Caller::Fence(id.clone(), plan), request);
                if self.random.one_in(self.swarm.repeat_fences) {
                    // An attempt that was given up may still reach the broker.
                    let delay = self.random.within(1..=3_000);
                    self.send_after(delay, p, Caller::Nobody, Request::Init(id));
                }
            }
        }
    }

    fn order(&mut self, p: &mut Process, partition: u32, order: Order) {
        let number = worker_of(partition, p.workers_count);
        if let Some(worker) = p.workers.get_mut(&number) {
            worker.orders.push_back(order);
            let start = worker.start;
            self.worker_soon(p, number, start);
        }
    }
}
