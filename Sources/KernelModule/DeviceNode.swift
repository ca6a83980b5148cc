// SPDX-License-Identifier: Apache-2.0
//
// A device node: what udev knows of the device, and who may open the node.

import Cudev
import Glibc
public import SystemPackage

/// A character device in /dev, described without opening it.
public struct DeviceNode: Sendable, Hashable {
    /// The node, `/dev/kvm`.
    public let path: FilePath
    /// The device in sysfs, `/sys/devices/virtual/misc/kvm`.
    public let systemPath: FilePath
    /// Whether udev has applied its rules to it; without udev, false for ever.
    public let isInitialized: Bool
    /// Who may open the node.
    public let access: NodeAccess

    /// Finds a device by subsystem and name. C: `udev_device_new_from_subsystem_sysname`, `stat`.
    ///
    /// - Parameters:
    ///   - name: its name in sysfs, `kvm`.
    ///   - subsystem: such as `misc`.
    /// - Throws: ENOENT or ENODEV if the kernel has no such device, ENOENT if it has no node; errno of `stat`.
    public init(_ name: String, subsystem: String) throws(Errno) {
        let library = try UdevLibrary()
        try self.init(library.device(name, subsystem: subsystem))
    }

    init(_ device: borrowing UdevDevice) throws(Errno) {
        guard let path = device.node else { throw .noSuchFileOrDirectory }
        self.path = path
        systemPath = device.systemPath
        isInitialized = device.isInitialized
        access = try NodeAccess(of: path)
    }
}

/// The owner and mode of a node, and whether this process may use it.
public struct NodeAccess: Sendable, Hashable {
    /// The owning user's ID.
    public let user: UInt32
    /// The owning group's ID.
    public let group: UInt32
    /// The owning group's name; nil if it has none.
    public let groupName: String?
    /// The permission bits, 0o660 say.
    public let mode: UInt32
    /// Whether this process may open it for reading and writing.
    public let isUsable: Bool

    /// Reads them without opening the node. C: `stat`, `access`, `getgrgid_r`.
    ///
    /// - Throws: errno of `stat`.
    public init(of path: FilePath) throws(Errno) {
        var status = stat()
        guard unsafe path.withPlatformString({ unsafe stat($0, &status) }) == 0 else { throw Errno(rawValue: errno) }
        user = status.st_uid
        group = status.st_gid
        groupName = Self.name(ofGroup: status.st_gid)
        mode = status.st_mode & 0o7777
        isUsable = unsafe path.withPlatformString { unsafe Glibc.access($0, R_OK | W_OK) } == 0
    }

    private static func name(ofGroup group: gid_t) -> String? {
        var entry = unsafe Glibc.group()
        var found: UnsafeMutablePointer<Glibc.group>?
        var buffer = [CChar](repeating: 0, count: 4096)
        // SAFETY: gr_name points into the buffer, so it is copied before the buffer goes.
        return unsafe buffer.withUnsafeMutableBufferPointer { buffer in
            let result = unsafe getgrgid_r(group, &entry, buffer.baseAddress!, buffer.count, &found)
            guard result == 0, let found = unsafe found, let name = unsafe found.pointee.gr_name else { return nil }
            return unsafe String(cString: name)
        }
    }
}
