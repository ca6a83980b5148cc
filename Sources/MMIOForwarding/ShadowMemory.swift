// SPDX-License-Identifier: Apache-2.0
//
// The emulation process's side of shadow memory: makes the image, maps it, says which loads it answers.

import CKVMUser
import Glibc
import LinuxSystem
import SystemPackage

extension EmulationDescriptor {
    /// Makes the shadow image, zeroed, or another one in its place. C: `KVM_DEV_USER_SHADOW_SIZE`.
    ///
    /// - Parameter size: bytes, a multiple of the page size.
    /// - Throws: ``ForwardingError``: EINVAL for 0 or part of a page, E2BIG beyond
    ///   ``DeviceInformation/maximumShadowSize``, EBUSY while there is one with a map or mapped somewhere, ENOMEM,
    ///   ENODEV.
    public func setShadowSize(_ size: UInt64) throws(ForwardingError) {
        var size = size
        try call("KVM_DEV_USER_SHADOW_SIZE", CKVMUSER_SHADOW_SIZE, &size)
    }

    /// Maps the beginning of the shadow image. C: `mmap(MAP_SHARED)`.
    ///
    /// - Parameter size: bytes.
    /// - Throws: ``ForwardingError``: EINVAL beyond the image's end, ENODEV.
    public func mapShadowImage(size: Int) throws(ForwardingError) -> ShadowImage {
        do {
            return try ShadowImage(mapping: descriptor, size: size)
        } catch {
            throw ForwardingError(call: "mmap of the shadow image", errno: error)
        }
    }

    /// Replaces the access map, all at once: from here on loads are answered as `map` says. C:
    /// `KVM_DEV_USER_SHADOW_CTRL`.
    ///
    /// - Parameter map: an empty one has every load forwarded.
    /// - Throws: ``ForwardingError``: E2BIG for more entries than ``ShadowMap/maximumCount`` once those for every range
    ///   are counted for each, EINVAL for a map that does not fit the device's image, ENOMEM, ENODEV.
    public func setShadowMap(_ map: ShadowMap) throws(ForwardingError) {
        let name = "KVM_DEV_USER_SHADOW_CTRL"
        let entries: [kvm_user_shadow_entry]
        do {
            entries = try map.rawEntries(ranges: try information().maximumRanges)
        } catch let error as ForwardingError {
            throw error
        } catch {
            throw ForwardingError(call: name, errno: .argListTooLong)
        }
        try unsafe entries.withUnsafeBufferPointer { entries throws(ForwardingError) in
            // SAFETY: the entries live through the call, which only reads them.
            var raw = kvm_dev_user_shadow_ctrl(
                entries: UInt64(UInt(bitPattern: entries.baseAddress)), nr_entries: UInt32(entries.count),
                pad: 0)
            try call(name, CKVMUSER_SHADOW_CTRL, &raw)
        }
    }

    /// Makes an image that is large enough if there is none, maps and fills it, then sets the map: what
    /// ``RequestTransport`` asks for; nil from a module without shadow memory.
    public func placeShadow(
        _ map: ShadowMap, _ fill: (borrowing ShadowImage) -> Void
    ) throws(ForwardingError) -> ShadowImage? {
        guard try hasShadow() else { return nil }
        let information = try information()
        // One of a process before this one serves as well.
        if information.shadowSize < UInt64(map.imageSize) {
            try setShadowSize((UInt64(map.imageSize) + pageSize - 1) & ~(pageSize - 1))
        }
        let image = try mapShadowImage(size: map.imageSize)
        fill(image)
        try setShadowMap(map)
        return image
    }

    /// Whether the module has shadow memory; one that cannot say has not.
    private func hasShadow() throws(ForwardingError) -> Bool {
        do throws(ForwardingError) {
            return try information().features.contains(.shadow)
        } catch {
            guard error.errno == .inappropriateIOCTLForDevice else { throw error }
            return false
        }
    }

    private var pageSize: UInt64 { UInt64(clamping: sysconf(CInt(_SC_PAGESIZE))) }
}
