use dbus::blocking::{stdintf::org_freedesktop_dbus::Properties, BlockingSender, Proxy};

pub trait OrgFreedesktopSystemd1Manager {
    fn get_unit(&self, name: &str) -> Result<dbus::Path<'static>, dbus::Error>;
    fn start_unit(&self, name: &str, mode: &str) -> Result<dbus::Path<'static>, dbus::Error>;
    fn stop_unit(&self, name: &str, mode: &str) -> Result<dbus::Path<'static>, dbus::Error>;
    fn reload_unit(&self, name: &str, mode: &str) -> Result<dbus::Path<'static>, dbus::Error>;
    fn restart_unit(&self, name: &str, mode: &str) -> Result<dbus::Path<'static>, dbus::Error>;
    fn list_units_by_patterns(&self, states: Vec<&str>, names: Vec<&str>) -> Result<Vec<Unit>, dbus::Error>;
    fn subscribe(&self) -> Result<(), dbus::Error>;
    fn reload(&self) -> Result<(), dbus::Error>;
    fn reexecute(&self) -> Result<(), dbus::Error>;
    fn reset_failed(&self) -> Result<(), dbus::Error>;
    fn environment(&self) -> Result<Vec<String>, dbus::Error>;
}

const MANAGER: &str = "org.freedesktop.systemd1.Manager";

// Name, description, load state, active state, sub state, followed unit, path; and a job's number, type and path.
type Unit = (String, String, String, String, String, String, dbus::Path<'static>, u32, String, dbus::Path<'static>);

impl<'a, T: BlockingSender, C: std::ops::Deref<Target = T>> OrgFreedesktopSystemd1Manager for Proxy<'a, C> {
    fn get_unit(&self, name: &str) -> Result<dbus::Path<'static>, dbus::Error> {
        self.method_call(MANAGER, "GetUnit", (name,)).map(|(path,)| path)
    }

    fn start_unit(&self, name: &str, mode: &str) -> Result<dbus::Path<'static>, dbus::Error> {
        self.method_call(MANAGER, "StartUnit", (name, mode)).map(|(path,)| path)
    }

    fn stop_unit(&self, name: &str, mode: &str) -> Result<dbus::Path<'static>, dbus::Error> {
        self.method_call(MANAGER, "StopUnit", (name, mode)).map(|(path,)| path)
    }

    fn reload_unit(&self, name: &str, mode: &str) -> Result<dbus::Path<'static>, dbus::Error> {
        self.method_call(MANAGER, "ReloadUnit", (name, mode)).map(|(path,)| path)
    }

    fn restart_unit(&self, name: &str, mode: &str) -> Result<dbus::Path<'static>, dbus::Error> {
        self.method_call(MANAGER, "RestartUnit", (name, mode)).map(|(path,)| path)
    }

    fn list_units_by_patterns(&self, states: Vec<&str>, names: Vec<&str>) -> Result<Vec<Unit>, dbus::Error> {
        self.method_call(MANAGER, "ListUnitsByPatterns", (states, names)).map(|(units,)| units)
    }

    fn subscribe(&self) -> Result<(), dbus::Error> {
        self.method_call(MANAGER, "Subscribe", ())
    }

    fn reload(&self) -> Result<(), dbus::Error> {
        self.method_call(MANAGER, "Reload", ())
    }

    fn reexecute(&self) -> Result<(), dbus::Error> {
        self.method_call(MANAGER, "Reexecute", ())
    }

    fn reset_failed(&self) -> Result<(), dbus::Error> {
        self.method_call(MANAGER, "ResetFailed", ())
    }

    fn environment(&self) -> Result<Vec<String>, dbus::Error> {
        self.get(MANAGER, "Environment")
    }
}

#[derive(Debug)]
pub struct OrgFreedesktopSystemd1ManagerReloading {
    pub active: bool,
}

impl dbus::arg::AppendAll for OrgFreedesktopSystemd1ManagerReloading {
    fn append(&self, message: &mut dbus::arg::IterAppend) {
        dbus::arg::RefArg::append(&self.active, message);
    }
}

impl dbus::arg::ReadAll for OrgFreedesktopSystemd1ManagerReloading {
    fn read(message: &mut dbus::arg::Iter) -> Result<Self, dbus::arg::TypeMismatchError> {
        Ok(Self { active: message.read()? })
    }
}

impl dbus::message::SignalArgs for OrgFreedesktopSystemd1ManagerReloading {
    const NAME: &'static str = "Reloading";
    const INTERFACE: &'static str = MANAGER;
}

#[derive(Debug)]
pub struct OrgFreedesktopSystemd1ManagerJobRemoved {
    pub id: u32,
    pub job: dbus::Path<'static>,
    pub unit: String,
    pub result: String,
}

impl dbus::arg::AppendAll for OrgFreedesktopSystemd1ManagerJobRemoved {
    fn append(&self, message: &mut dbus::arg::IterAppend) {
        dbus::arg::RefArg::append(&self.id, message);
        dbus::arg::RefArg::append(&self.job, message);
        dbus::arg::RefArg::append(&self.unit, message);
        dbus::arg::RefArg::append(&self.result, message);
    }
}

impl dbus::arg::ReadAll for OrgFreedesktopSystemd1ManagerJobRemoved {
    fn read(message: &mut dbus::arg::Iter) -> Result<Self, dbus::arg::TypeMismatchError> {
        Ok(Self {
            id: message.read()?,
            job: message.read()?,
            unit: message.read()?,
            result: message.read()?,
        })
    }
}

impl dbus::message::SignalArgs for OrgFreedesktopSystemd1ManagerJobRemoved {
    const NAME: &'static str = "JobRemoved";
    const INTERFACE: &'static str = MANAGER;
}
// org.freedesktop.login1
use dbus::blocking::{BlockingSender, Proxy};

pub trait OrgFreedesktopLogin1Manager {
    fn list_users(&self) -> Result<Vec<(u32, String, dbus::Path<'static>)>, dbus::Error>;
}

impl<'a, T: BlockingSender, C: std::ops::Deref<Target = T>> OrgFreedesktopLogin1Manager for Proxy<'a, C> {
    fn list_users(&self) -> Result<Vec<(u32, String, dbus::Path<'static>)>, dbus::Error> {
        self.method_call("org.freedesktop.login1.Manager", "ListUsers", ())
            .map(|(users,)| users)
    }
}
