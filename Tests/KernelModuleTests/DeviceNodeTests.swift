// SPDX-License-Identifier: Apache-2.0
//
// Device nodes that every machine has, described through libudev and stat.

import Glibc
import KernelModule
import SystemPackage
import Testing

@Suite("Device node")
struct DeviceNodeTests {
    @Test("/dev/null is described without being opened")
    func describes() throws {
        let node = try DeviceNode("null", subsystem: "mem")
        #expect(node.path == "/dev/null")
        #expect(node.systemPath == "/sys/devices/virtual/mem/null")
        #expect(node.access.mode & 0o666 == 0o666)
        #expect(node.access.user == 0)
        #expect(node.access.groupName == "root")
        #expect(node.access.isUsable)
    }

    @Test("a device that the kernel does not have is an error")
    func absent() {
        #expect(throws: Errno.self) { try DeviceNode("nonexistent", subsystem: "misc") }
        #expect(throws: Errno.noSuchFileOrDirectory) { try NodeAccess(of: "/dev/nonexistent") }
    }

    @Test("waiting for a node that is there returns at once", .timeLimit(.minutes(10)))
    func alreadyThere() throws {
        let monitor = try DeviceMonitor(subsystem: "mem", source: .kernel)
        let node = try monitor.wait(for: "null", timeout: .seconds(3600))
        #expect(node.path == "/dev/null")
    }

    @Test("waiting for a node that never comes ends with ETIMEDOUT, not before the time", .timeLimit(.minutes(10)))
    func timesOut() throws {
        let monitor = try DeviceMonitor(subsystem: "misc", source: .kernel)
        let start = ContinuousClock.now
        var error: Errno?
        do throws(Errno) {
            _ = try monitor.wait(for: "nonexistent", timeout: .milliseconds(50))
        } catch let caught {
            error = caught
        }
        #expect(error == .timedOut)
        #expect(ContinuousClock.now - start >= .milliseconds(50))
    }
}
