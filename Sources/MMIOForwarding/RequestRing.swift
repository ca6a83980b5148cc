// SPDX-License-Identifier: Apache-2.0
//
// Requests and replies in memory that the kernel and the emulation process share.

import CKVMUser
import Glibc
import LinuxSystem
import Synchronization
public import SystemPackage

/// A device's requests and replies by way of shared memory: a transport without a system call for an access, as long as
/// neither side sleeps. C: `KVM_DEV_USER_RING`.
///
/// The same requests come in the same order as from the ``EmulationDescriptor`` that it is made of, and the same rules
/// hold for replies. One thread at a time uses it. It looks for requests as often as it was told, and then sleeps in the
/// kernel, which may wait awake as well (`spin_ns`).
///
/// Whatever a hostile kernel side, or another process with the same memory, writes there: nothing here traps, and no
/// memory outside of it is touched.
@safe public struct RequestRing: ~Copyable, Sendable {
    /// What the ring belongs to; its reads are EBUSY, its writes are not.
    public private(set) var emulation: EmulationDescriptor
    private let memory: MemoryMapping
    private let layout: Layout
    private let spins: Int
    private var requestTail: UInt32 = 0
    private var replyHead: UInt32 = 0
    private var gone = false

    /// Where things are in the memory.
    struct Layout: Hashable {
        let size: Int
        let mask: UInt32
        let requests: Int
        let replies: Int

        /// - Throws: EPROTO for what no kernel of ours says.
        init(_ raw: kvm_dev_user_ring) throws(Errno) {
            let stride = UInt64(KVM_USER_RING_STRIDE)
            let entries = UInt64(raw.entries)
            let header = UInt64(MemoryLayout<kvm_user_ring>.size)
            let ends = [raw.requests_offset, raw.replies_offset].map { UInt64($0) + entries * stride }
            guard entries > 0, entries & (entries - 1) == 0, raw.size <= 1 << 30, ends.allSatisfy({ $0 <= raw.size }),
                raw.requests_offset % 8 == 0, raw.replies_offset % 8 == 0,
                min(raw.requests_offset, raw.replies_offset) >= header
            else { throw Errno(rawValue: EPROTO) }
            size = Int(raw.size)
            mask = raw.entries - 1
            requests = Int(raw.requests_offset)
            replies = Int(raw.replies_offset)
        }

        /// Makes the ring, and asks where things are in it.
        init(of emulation: borrowing EmulationDescriptor) throws(ForwardingError) {
            let name = "KVM_DEV_USER_RING"
            var raw = kvm_dev_user_ring()
            try emulation.call(name, CKVMUSER_RING, &raw)
            do throws(Errno) {
                self = try Layout(raw)
            } catch {
                throw ForwardingError(call: name, errno: error)
            }
        }

        func map(_ emulation: borrowing EmulationDescriptor) throws(ForwardingError) -> MemoryMapping {
            do throws(Errno) {
                return try MemoryMapping(
                    mapping: emulation.descriptor, offset: Int(CKVMUSER_RING_OFFSET), count: size)
            } catch {
                throw ForwardingError(call: "mmap of the ring", errno: error)
            }
        }

        func request(_ count: UInt32) -> Int { requests + Int(count & mask) * Int(KVM_USER_RING_STRIDE) }
        func reply(_ count: UInt32) -> Int { replies + Int(count & mask) * Int(KVM_USER_RING_STRIDE) }
    }

    /// Has a device's requests come by way of memory from now on, until the last close of its descriptor.
    ///
    /// - Parameters:
    ///   - emulation: the device's emulation descriptor, taken over.
    ///   - spins: how often to look for a request before sleeping; 0 on a machine with one CPU, whose other side could
    ///     do nothing meanwhile.
    /// - Throws: ``ForwardingError``: EBUSY if there is a ring, ENOMEM, ENOTTY from a module without
    ///   ``DeviceInformation/Features/ring``, ENODEV.
    public init(_ emulation: consuming EmulationDescriptor, spins: Int = 0) throws(ForwardingError) {
        let layout = try Layout(of: emulation)
        let memory = try layout.map(emulation)
        self.layout = layout
        self.memory = memory
        self.emulation = emulation
        self.spins = max(0, spins)
    }

    /// Takes requests that are there, oldest first, without waiting and without a system call.
    ///
    /// - Parameter requests: room; the first ones are overwritten.
    /// - Returns: how many came.
    public mutating func take(into requests: inout MutableSpan<ForwardedRequest>) -> Int {
        // A count that is too large would have requests read twice; no kernel of ours writes one.
        let unread = word(Place.requestHead).load() &- requestTail
        let count = min(Int(min(unread, layout.mask &+ 1)), requests.count)
        for index in 0..<count {
            // SAFETY: the layout was checked to lie within the mapping; any bytes make a request.
            let raw = unsafe (memory.baseAddress + layout.request(requestTail)).loadUnaligned(as: kvm_user_request.self)
            requests[index] = ForwardedRequest(raw: raw)
            requestTail &+= 1
        }
        word(Place.requestTail).store(requestTail)
        return count
    }

    /// Gives replies, as many as the kernel has room for, and enters it if a vCPU sleeps, or requests wait until others
    /// are replied to.
    ///
    /// - Returns: how many were given: all, unless more were given than are owed.
    /// - Throws: errno of `KVM_DEV_USER_RING_ENTER`: ENODEV if the virtual machine is gone.
    public mutating func give(_ replies: Span<ForwardedReply>) throws(Errno) -> Int {
        let given = put(replies)
        if given > 0, isEnterNeeded { try enter(waiting: false) }
        return given
    }

    /// What `KVM_DEV_USER_RING_ENTER` is for: has replies looked at by a kernel whose vCPUs sleep, and waits.
    ///
    /// - Parameter waiting: whether to wait until there is a request; not on a non-blocking descriptor.
    /// - Throws: errno of the call: EINTR if a signal came, ENODEV if the virtual machine is gone.
    public func enter(waiting: Bool) throws(Errno) {
        var raw = kvm_dev_user_ring_enter(flags: waiting ? UInt32(KVM_USER_RING_ENTER_WAIT) : 0, pad: 0)
        try emulation.descriptor.ioctl(CKVMUSER_RING_ENTER, &raw, onInterrupt: waiting ? .fail : .retry)
    }

    /// Replies that the kernel did not take: to a request that it had given up, or to none.
    public var refusedReplies: UInt32 { word(Place.refused).load() }

    /// Stores replies and publishes them, without telling a kernel that does not look; gives how many there was room for.
    mutating func put(_ replies: Span<ForwardedReply>) -> Int {
        let used = replyHead &- word(Place.replyTail).load()
        let room = used <= layout.mask ? Int(layout.mask &+ 1 &- used) : 0
        let count = min(room, replies.count)
        guard count > 0 else { return 0 }
        for index in 0..<count {
            // SAFETY: as in take.
            unsafe (memory.baseAddress + layout.reply(replyHead))
                .storeBytes(of: replies[index].raw, as: kvm_user_request.self)
            replyHead &+= 1
        }
        word(Place.replyHead).store(replyHead)
        return count
    }

    /// Whether the kernel would not look at replies by itself; asked after they were given.
    private var isEnterNeeded: Bool {
        // Pairs with the kernel's, which sets the flag and then looks for replies.
        atomicMemoryFence(ordering: .sequentiallyConsistent)
        return word(Place.flags).load() & UInt32(KVM_USER_RING_NEED_ENTER) != 0
    }

    private func word(_ offset: Int) -> SharedWord {
        // SAFETY: within the header, which the mapping holds, aligned, and only ever accessed atomically.
        unsafe SharedWord(memory.baseAddress + offset)
    }

    /// Where the counts are.
    private enum Place {
        static let requestHead = offset(of: \.request_head)
        static let requestTail = offset(of: \.request_tail)
        static let replyHead = offset(of: \.reply_head)
        static let replyTail = offset(of: \.reply_tail)
        static let refused = offset(of: \.refused)
        static let flags = offset(of: \.flags)

        private static func offset(of path: KeyPath<kvm_user_ring, UInt32>) -> Int {
            MemoryLayout<kvm_user_ring>.offset(of: path) ?? 0
        }
    }
}

/// One of the ring's counts.
@safe private struct SharedWord {
    private let address: UnsafeMutablePointer<Atomic<UInt32>>

    @unsafe init(_ address: UnsafeMutableRawPointer) {
        unsafe self.address = address.assumingMemoryBound(to: Atomic<UInt32>.self)
    }

    /// What was stored before the value was is seen.
    // SAFETY: whoever made this vouched for the address.
    func load() -> UInt32 { unsafe address.pointee.load(ordering: .acquiring) }

    /// Publishes what was stored before.
    func store(_ value: UInt32) { unsafe address.pointee.store(value, ordering: .releasing) }
}

extension RequestRing: RequestTransport {
    /// All that the kernel did not take, those to no request included: the ring does not tell them apart.
    public var staleReplies: UInt64 { UInt64(refusedReplies) }

    public var takesCumulativeReplies: Bool {
        mutating get { emulation.takesCumulativeReplies }
    }

    /// Looks for requests as often as it was told, and then sleeps; no system call while neither side does.
    public mutating func exchange(
        _ replies: Span<ForwardedReply>, for requests: inout MutableSpan<ForwardedRequest>
    ) throws(Errno) -> Int {
        if gone { return requests.isEmpty ? 0 : try emulation.read(into: &requests) }
        do throws(Errno) {
            // More than are owed cannot be given at all.
            guard try give(replies) == replies.count else { throw Errno.invalidArgument }
            guard !requests.isEmpty else { return 0 }
            while true {
                for _ in 0...spins {
                    let count = take(into: &requests)
                    if count > 0 { return count }
                }
                try enter(waiting: true)
            }
        } catch .noDevice {
            return try takeRest(into: &requests)
        }
    }

    /// The machine is gone: what the ring still has, and from then on what the kernel kept back.
    private mutating func takeRest(into requests: inout MutableSpan<ForwardedRequest>) throws(Errno) -> Int {
        let count = take(into: &requests)
        if count > 0 { return count }
        gone = true
        return requests.isEmpty ? 0 : try emulation.read(into: &requests)
    }

    public mutating func placeShadow(
        _ map: ShadowMap, _ fill: (borrowing ShadowImage) -> Void
    ) throws(ForwardingError) -> ShadowImage? {
        try emulation.placeShadow(map, fill)
    }
}
