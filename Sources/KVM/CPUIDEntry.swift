// SPDX-License-Identifier: Apache-2.0
//
// One leaf of what a guest's CPUID instruction returns.

import CKVM
import LinuxSystem
import SystemPackage

/// What CPUID returns for one function and, where it has them, one index. C: `struct kvm_cpuid_entry2`.
public struct CPUIDEntry: Hashable, Sendable {
    /// The leaf: EAX before the instruction.
    public var function: UInt32
    /// The subleaf: ECX before the instruction; counts only where ``indexMatters``.
    public var index: UInt32
    /// Whether the leaf has subleaves.
    public var indexMatters: Bool
    /// EAX after the instruction.
    public var eax: UInt32
    /// EBX after the instruction.
    public var ebx: UInt32
    /// ECX after the instruction.
    public var ecx: UInt32
    /// EDX after the instruction.
    public var edx: UInt32

    /// Makes an entry, all registers 0 unless given; without `index` the leaf has no subleaves.
    public init(
        function: UInt32, index: UInt32? = nil, eax: UInt32 = 0, ebx: UInt32 = 0, ecx: UInt32 = 0, edx: UInt32 = 0
    ) {
        self.function = function
        self.index = index ?? 0
        self.indexMatters = index != nil
        self.eax = eax
        self.ebx = ebx
        self.ecx = ecx
        self.edx = edx
    }

    init(raw: kvm_cpuid_entry2) {
        let matters = raw.flags & CKVM_CPUID_FLAG_SIGNIFICANT_INDEX != 0
        self.init(
            function: raw.function, index: matters ? raw.index : nil, eax: raw.eax, ebx: raw.ebx, ecx: raw.ecx,
            edx: raw.edx)
    }

    var raw: kvm_cpuid_entry2 {
        kvm_cpuid_entry2(
            function: function, index: index, flags: indexMatters ? CKVM_CPUID_FLAG_SIGNIFICANT_INDEX : 0, eax: eax,
            ebx: ebx,
            ecx: ecx, edx: edx, padding: (0, 0, 0))
    }

    /// Reads a table of unknown size: more room until the kernel no longer says E2BIG.
    static func table(
        _ name: String, _ read: (UnsafeMutablePointer<kvm_cpuid_entry2>, inout UInt32) -> CInt
    ) throws(KVMError) -> [CPUIDEntry] {
        var room = 128
        while true {
            do throws(KVMError) {
                return unsafe try table(name, room: room, read)
            } catch {
                // KVM's own limit is 256.
                guard error.errno == .argListTooLong, room < 4096 else { throw error }
                room *= 2
            }
        }
    }

    private static func table(
        _ name: String, room: Int, _ read: (UnsafeMutablePointer<kvm_cpuid_entry2>, inout UInt32) -> CInt
    ) throws(KVMError) -> [CPUIDEntry] {
        var raw = [kvm_cpuid_entry2](repeating: kvm_cpuid_entry2(), count: room)
        var count = UInt32(room)
        // SAFETY: the array has room for `count` entries, and `read` says how many it filled.
        try kvmCall(name) {
            unsafe raw.withUnsafeMutableBufferPointer { unsafe read($0.baseAddress!, &count) }
        }
        return raw.prefix(Int(count)).map(CPUIDEntry.init(raw:))
    }
}
