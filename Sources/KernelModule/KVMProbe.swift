// SPDX-License-Identifier: Apache-2.0
//
// One look into /dev/kvm: does it answer, and would it make a device of a given type.

import CKVM
import LinuxSystem
public import SystemPackage

/// What /dev/kvm answered.
public struct KVMProbe: Sendable, Hashable {
    /// How one question was answered.
    public enum Answer: Sendable, Hashable {
        /// It was not asked, for what it needs was missing.
        case notAsked
        /// The call succeeded with this result.
        case yes(Int32)
        /// The call failed.
        case no(Errno)
    }

    /// KVM_GET_API_VERSION: 12 on every kernel since 2.6.22; `no` also if /dev/kvm could not be opened.
    public let version: Answer
    /// KVM_CREATE_VM.
    public let machine: Answer
    /// KVM_CREATE_DEVICE with KVM_CREATE_DEVICE_TEST: whether such a device could be made.
    public let device: Answer

    /// Puts answers together, for a machine that is not at hand.
    public init(version: Answer, machine: Answer = .notAsked, device: Answer = .notAsked) {
        self.version = version
        self.machine = machine
        self.device = device
    }

    /// Opens /dev/kvm and asks. The virtual machine that it makes is empty, and gone when this returns.
    ///
    /// - Parameters:
    ///   - path: KVM's node.
    ///   - deviceType: the type to ask for; nil asks for none.
    public init(asking path: FilePath = "/dev/kvm", deviceType: UInt32?) {
        do throws(Errno) {
            let system = try OwnedDescriptor.open(path, .readWrite)
            let version = try system.ioctl(CKVM_GET_API_VERSION)
            let (machine, device) = Self.askForMachine(system, deviceType)
            self.init(version: .yes(version), machine: machine, device: device)
        } catch {
            self.init(version: .no(error))
        }
    }

    private static func askForMachine(_ system: borrowing OwnedDescriptor, _ type: UInt32?) -> (Answer, Answer) {
        do throws(Errno) {
            let machine = OwnedDescriptor(adopting: try system.ioctl(CKVM_CREATE_VM))
            return (.yes(0), type.map { askForDevice(machine, $0) } ?? .notAsked)
        } catch {
            return (.no(error), .notAsked)
        }
    }

    private static func askForDevice(_ machine: borrowing OwnedDescriptor, _ type: UInt32) -> Answer {
        var request = kvm_create_device(type: type, fd: 0, flags: UInt32(KVM_CREATE_DEVICE_TEST))
        do throws(Errno) {
            return .yes(try machine.ioctl(CKVM_CREATE_DEVICE, &request))
        } catch {
            return .no(error)
        }
    }
}
