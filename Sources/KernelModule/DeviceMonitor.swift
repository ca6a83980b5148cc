// SPDX-License-Identifier: Apache-2.0
//
// Waiting for a device node to appear.

import Glibc
import LinuxSystem
public import SystemPackage

/// Watches one subsystem's devices come.
///
/// Make it before whatever makes the device appear: it has every event from then on.
public struct DeviceMonitor: ~Copyable {
    /// Where events come from.
    public enum Source: String, Sendable, Hashable, CaseIterable {
        /// From udevd, after its rules have set the node's owner and mode.
        case udev
        /// From the kernel itself, for machines that run no udevd.
        case kernel

        /// The source that this machine has: udevd's, if its socket in /run/udev is there.
        public init(of tree: SystemTree = .running) {
            self = tree.exists("run/udev/control") ? .udev : .kernel
        }
    }

    private let monitor: UdevMonitor
    private let subsystem: String

    /// Begins to listen. C: `udev_monitor_new_from_netlink`.
    ///
    /// - Parameters:
    ///   - subsystem: such as `misc`, where kvm is.
    ///   - source: who tells of events.
    /// - Throws: errno of the netlink socket.
    public init(subsystem: String, source: Source = Source()) throws(Errno) {
        monitor = try UdevLibrary().monitor(source: source, subsystem: subsystem)
        self.subsystem = subsystem
    }

    /// Waits until the device `name` is there, and returns at once if it is already.
    ///
    /// - Parameters:
    ///   - name: its name in sysfs, such as `kvm`.
    ///   - timeout: how long to wait; a whole number of milliseconds, rounded up.
    /// - Throws: ETIMEDOUT; errno of `poll` or `stat`.
    public func wait(for name: String, timeout: Duration) throws(Errno) -> DeviceNode {
        let clock = ContinuousClock()
        let end = clock.now + timeout
        if let node = try? DeviceNode(name, subsystem: subsystem) { return node }
        while true {
            let left = end - clock.now
            guard left > .zero else { throw .timedOut }
            guard try isReadable(within: left), let event = monitor.receive() else { continue }
            if event.action == "add", event.name == name { return try DeviceNode(event) }
        }
    }

    private func isReadable(within left: Duration) throws(Errno) -> Bool {
        var poll = pollfd(fd: monitor.descriptor, events: Int16(POLLIN), revents: 0)
        let milliseconds =
            (left.components.seconds.clamped(to: 0...86_400) * 1000)
            + left.components.attoseconds / 1_000_000_000_000_000 + 1
        let count = try systemCall(onInterrupt: .retry) { unsafe Glibc.poll(&poll, 1, CInt(milliseconds)) }
        return count > 0
    }
}

extension Comparable {
    fileprivate func clamped(to limits: ClosedRange<Self>) -> Self {
        min(max(self, limits.lowerBound), limits.upperBound)
    }
}
