// SPDX-License-Identifier: Apache-2.0
//
// The number under which KVM_CREATE_DEVICE knows KVM_DEV_TYPE_USER on this machine.

import LinuxSystem
public import SystemPackage

/// KVM_DEV_TYPE_USER, as the running module registered it.
///
/// Stock kernels have no number for it, so the module takes one that x86 leaves unused and shows it in sysfs.
public struct DeviceType: RawRepresentable, Hashable, Sendable {
    /// The `type` of KVM_CREATE_DEVICE.
    public let rawValue: UInt32

    /// Takes a number that is known from elsewhere.
    public init(rawValue: UInt32) {
        self.rawValue = rawValue
    }

    /// Where the module shows its number.
    public static let parameterPath: FilePath = "/sys/module/kvm_user/parameters/device_type"

    /// The number that the loaded module registered.
    ///
    /// - Parameter path: where to read it.
    /// - Throws: ``ForwardingError``, with ENOENT if the module is not loaded.
    public static func current(path: FilePath = parameterPath) throws(ForwardingError) -> DeviceType {
        var text = [UInt8](repeating: 0, count: 16)
        let count: Int
        do {
            let file = try OwnedDescriptor.open(path, .readOnly)
            count = try unsafe text.withUnsafeMutableBytes { unsafe try file.fileDescriptor.read(into: $0) }
        } catch {
            throw ForwardingError(call: "open(\(path))", errno: error as? Errno ?? .ioError)
        }
        let digits = text.prefix(count).prefix { $0 != UInt8(ascii: "\n") }
        guard let number = UInt32(String(decoding: digits, as: UTF8.self)) else {
            throw ForwardingError(call: "read(\(path))", errno: .invalidArgument)
        }
        return DeviceType(rawValue: number)
    }
}
