// SPDX-License-Identifier: Apache-2.0
//
// libudev's objects, each with one owner. Its functions return a null pointer and errno.

import Cudev
import Glibc
import SystemPackage

/// A libudev context.
@safe struct UdevLibrary: ~Copyable {
    private let raw: OpaquePointer

    init() throws(Errno) {
        guard let raw = unsafe udev_new() else { throw Errno(rawValue: errno) }
        unsafe self.raw = raw
    }

    deinit {
        unsafe udev_unref(raw)
    }

    /// C: `udev_device_new_from_subsystem_sysname`.
    func device(_ name: String, subsystem: String) throws(Errno) -> UdevDevice {
        guard let device = unsafe udev_device_new_from_subsystem_sysname(raw, subsystem, name) else {
            throw Errno(rawValue: errno)
        }
        return unsafe UdevDevice(adopting: device)
    }

    /// C: `udev_monitor_new_from_netlink`, narrowed to one subsystem and listening.
    func monitor(source: DeviceMonitor.Source, subsystem: String) throws(Errno) -> UdevMonitor {
        guard let raw = unsafe udev_monitor_new_from_netlink(raw, source.rawValue) else { throw Errno(rawValue: errno) }
        let monitor = unsafe UdevMonitor(adopting: raw)
        try monitor.listen(to: subsystem)
        return monitor
    }
}

/// A device that libudev found, or an event about one.
@safe struct UdevDevice: ~Copyable {
    private let raw: OpaquePointer

    init(adopting raw: OpaquePointer) {
        unsafe self.raw = raw
    }

    deinit {
        unsafe udev_device_unref(raw)
    }

    var name: String? { unsafe text(udev_device_get_sysname(raw)) }
    /// What happened, if this is an event: `add`, `remove`, `change` …
    var action: String? { unsafe text(udev_device_get_action(raw)) }
    var node: FilePath? { unsafe text(udev_device_get_devnode(raw)).map { FilePath($0) } }
    var systemPath: FilePath { FilePath(unsafe text(udev_device_get_syspath(raw)) ?? "") }
    var isInitialized: Bool { unsafe udev_device_get_is_initialized(raw) > 0 }

    private func text(_ string: UnsafePointer<CChar>?) -> String? {
        unsafe string.map { unsafe String(cString: $0) }
    }
}

/// A netlink socket on which device events arrive.
@safe struct UdevMonitor: ~Copyable {
    private let raw: OpaquePointer

    init(adopting raw: OpaquePointer) {
        unsafe self.raw = raw
    }

    deinit {
        unsafe udev_monitor_unref(raw)
    }

    /// Its number, to poll. It stays this value's.
    var descriptor: CInt { unsafe udev_monitor_get_fd(raw) }

    fileprivate func listen(to subsystem: String) throws(Errno) {
        let added = unsafe udev_monitor_filter_add_match_subsystem_devtype(raw, subsystem, nil)
        if added < 0 { throw Errno(rawValue: -added) }
        let enabled = unsafe udev_monitor_enable_receiving(raw)
        if enabled < 0 { throw Errno(rawValue: -enabled) }
    }

    /// Takes the next event; nil if there is none after all. C: `udev_monitor_receive_device`.
    func receive() -> UdevDevice? {
        guard let device = unsafe udev_monitor_receive_device(raw) else { return nil }
        return unsafe UdevDevice(adopting: device)
    }
}
