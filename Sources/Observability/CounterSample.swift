// SPDX-License-Identifier: Apache-2.0
//
// The counters of all devices at one moment, and what happened between two moments.

import Glibc
public import KernelModule
import SystemPackage

/// What every device had counted at one moment.
public struct CounterSample: Sendable, Hashable {
    /// The moment, in nanoseconds of CLOCK_MONOTONIC.
    public let nanoseconds: UInt64
    /// The devices, in order.
    public let devices: [DeviceCounters]

    /// Where kvm_user shows its devices, a file each.
    static let folder = "sys/kernel/debug/kvm_user"

    /// Puts a sample together.
    public init(nanoseconds: UInt64, devices: [DeviceCounters]) {
        self.nanoseconds = nanoseconds
        self.devices = devices
    }

    /// Takes a sample now. A device that goes meanwhile is left out.
    ///
    /// - Throws: ``KernelModule/ModuleError``: the module is not loaded, debugfs is not mounted, or this user may not
    ///   read it.
    public init(of tree: SystemTree = .running) throws(ModuleError) {
        let ids = try Self.devices(of: tree)
        nanoseconds = Self.now()
        devices = ids.compactMap { id in
            guard let bytes = try? tree.bytes("\(Self.folder)/\(id)") else { return nil }
            return DeviceCounters(
                id, command: tree.command(of: id.process), counters: DeviceCounters.parse(bytes))
        }
    }

    /// The devices that there are now.
    ///
    /// - Throws: as ``init(of:)``.
    public static func devices(of tree: SystemTree = .running) throws(ModuleError) -> [DeviceIdentity] {
        do throws(Errno) {
            return try tree.names(in: folder).compactMap { DeviceIdentity(parsing: $0) }.sorted()
        } catch {
            throw failure(error, tree)
        }
    }

    /// How much a total has grown in each second since an earlier sample.
    ///
    /// - Returns: rounded; nil for a counter that is no total, that one of the samples does not have, or that went
    ///   back, and if no time has passed.
    public func perSecond(
        _ counter: DeviceCounters.Counter, of device: DeviceIdentity, since earlier: CounterSample
    ) -> UInt64? {
        guard counter.isTotal, nanoseconds > earlier.nanoseconds,
            let before = earlier.devices.first(where: { $0.device == device })?[counter.name], before <= counter.value
        else { return nil }
        let elapsed = UInt128(nanoseconds - earlier.nanoseconds)
        return UInt64(clamping: (UInt128(counter.value - before) * 1_000_000_000 + elapsed / 2) / elapsed)
    }

    private static func now() -> UInt64 {
        var time = timespec()
        _ = unsafe clock_gettime(CLOCK_MONOTONIC, &time)
        return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
    }

    private static func failure(_ errno: Errno, _ tree: SystemTree) -> ModuleError {
        let action = "read the counters of \(ForwardingModule.name)"
        if let missing = ModuleError.notLoaded(action, errno, tree) { return missing }
        if errno == .permissionDenied || errno == .notPermitted {
            return ModuleError(
                action: action, errno: errno, cause: "this user may not read debugfs", remedy: "use sudo")
        }
        if (try? tree.names(in: "sys/kernel/debug"))?.isEmpty != false {
            return ModuleError(
                action: action, errno: errno, cause: "debugfs is not mounted",
                remedy: "sudo mount -t debugfs debugfs /sys/kernel/debug")
        }
        return ModuleError(
            action: action, errno: errno, cause: "there is no /\(folder)",
            remedy: "see the kernel log for what \(ForwardingModule.name) said when it was loaded")
    }
}

extension ModuleError {
    /// The error if all that is wrong is that the module is not there.
    static func notLoaded(_ action: String, _ errno: Errno, _ tree: SystemTree) -> ModuleError? {
        if ModuleState(of: ForwardingModule.name, in: tree).isUsable { return nil }
        return ModuleError(
            action: action, errno: errno, cause: "\(ForwardingModule.name) is not loaded",
            remedy: "sudo mmiofd module load")
    }
}
