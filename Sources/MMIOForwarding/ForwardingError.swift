// SPDX-License-Identifier: Apache-2.0
//
// What went wrong with a device of the module's: the call, its errno, and what to do.

public import SystemPackage

/// A call on a control or emulation descriptor that failed.
public struct ForwardingError: Error, Hashable, Sendable, CustomStringConvertible {
    /// The call as C names it, KVM_DEV_USER_PA_RANGE say.
    public let call: String
    /// What it returned.
    public let errno: Errno

    /// Notes a failed call.
    public init(call: String, errno: Errno) {
        self.call = call
        self.errno = errno
    }

    public var description: String {
        let tried = "\(call): \(errno)"
        return remedy.map { "\(tried); \($0)" } ?? tried
    }

    /// What to do, where that is known.
    private var remedy: String? {
        switch (call, errno) {
        case ("KVM_CREATE_DEVICE", .noDevice),
            (_, .noSuchFileOrDirectory) where call.hasPrefix("open"):
            "no KVM_DEV_TYPE_USER: the module is not loaded; run `mmiofd module load`"
        case ("KVM_DEV_USER_PA_RANGE", .fileExists):
            "it overlaps another range of this device; move or remove that one first"
        case ("KVM_DEV_USER_PA_RANGE", .noSpace):
            "KVM's bus is full; remove a range, a coalesced zone or a device"
        case ("KVM_DEV_USER_PA_RANGE", .noSuchFileOrDirectory):
            "there is no range of this id to remove"
        case ("KVM_DEV_USER_PA_RANGE", .invalidArgument):
            "the range is empty, wraps, is longer than 2 GiB - 1, or ends beyond port 0xffff, or its id is too large"
        case ("KVM_DEV_USER_EMULATION_FD", .resourceBusy):
            "the device has an emulation descriptor; it must be closed everywhere first"
        case ("KVM_DEV_USER_SHADOW_SIZE", .resourceBusy):
            "there is an image with a map, or mapped somewhere; empty the map and unmap it first"
        case ("KVM_DEV_USER_SHADOW_SIZE", .argListTooLong):
            "the module's parameter max_shadow_size bounds it; load it with a larger one"
        case ("KVM_DEV_USER_SHADOW_SIZE", .invalidArgument):
            "the size has to be a multiple of the page size, and not 0"
        case ("KVM_DEV_USER_SHADOW_CTRL", .argListTooLong):
            "the map has too many entries; one for every range counts once for each"
        case ("KVM_DEV_USER_SHADOW_CTRL", .invalidArgument):
            "an entry leaves the image, or names a range that cannot be"
        case ("KVM_DEV_USER_ON_CLOSE", .inappropriateIOCTLForDevice):
            "the loaded module is older than this program; unload it, and load the one that was built with this"
        case ("KVM_DEV_USER_RESUME", .resourceBusy):
            "another thread waits for this vCPU's access already"
        case ("KVM_DEV_USER_RESUME", .invalidArgument):
            "there is no vCPU of this index; they count from 0 in the order in which they were made"
        case (_, .ioError):
            "KVM lets only the process that made the virtual machine configure it, and only while that lives"
        default:
            nil
        }
    }
}
