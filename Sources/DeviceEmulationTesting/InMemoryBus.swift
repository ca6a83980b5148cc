// SPDX-License-Identifier: Apache-2.0
//
// The kernel's side of the emulation descriptor, in memory: a queue of requests and a check of replies.

import LinuxSystem
public import MMIOForwarding
import Synchronization
import SystemPackage

/// Takes accesses of an imagined guest and hands them to servers as the emulation descriptor does.
///
/// Each request is delivered once, oldest first, to whichever ``InMemoryTransport`` asks. A reply must fit a request
/// that was delivered and not replied to. Sequence numbers are unique and jump about, so that nothing can depend on
/// them.
///
/// With shadow memory, ``load(_:length:rangeID:vcpu:)`` is answered from a device's ``ShadowRegisters`` as the kernel
/// does it: without a request, once the vCPU's own stores have been replied to.
///
/// Any thread may call anything at any time.
public final class InMemoryBus: Sendable {
    private let state = Mutex(State())
    private let shadow = Mutex<Shadow?>(nil)
    private let available = Semaphore()
    private let hasShadow: Bool

    /// The loads that are answered here, and their values.
    private final class Shadow: Sendable {
        let map: ShadowMap
        let image: ShadowImage

        init(_ map: ShadowMap, _ image: consuming ShadowImage) {
            self.map = map
            self.image = image
        }
    }

    fileprivate struct State {
        var pending: [ForwardedRequest] = []
        /// Delivered and not replied to.
        var sent: [UInt64: ForwardedRequest] = [:]
        var retired: Set<UInt64> = []
        var replies: [ForwardedReply] = []
        var values: [UInt64: UInt64] = [:]
        /// Stores without a reply, by vCPU.
        var postedStores: [UInt32: Int] = [:]
        var waiters: [Waiter] = []
        var ended = false
        var made: UInt64 = 0
    }

    /// A load that waits, as rule O3 says: for its reply and for those of its vCPU's older stores.
    fileprivate struct Waiter {
        let sequence: UInt64
        let vcpu: UInt32
        let semaphore: Semaphore
    }

    /// Makes a bus with nothing on it.
    ///
    /// - Parameter hasShadow: whether it has shadow memory.
    public init(hasShadow: Bool = false) {
        self.hasShadow = hasShadow
    }

    /// A connection for one server. Several may be open at once.
    public func transport() -> InMemoryTransport {
        InMemoryTransport(self)
    }

    /// A sequence number that was not used before.
    public func makeSequence() -> UInt64 {
        state.withLock { $0.makeSequence() }
    }

    /// Queues a request as it is, however malformed.
    ///
    /// - Parameter request: its sequence number must come from ``makeSequence()``.
    public func submit(_ request: ForwardedRequest) {
        state.withLock { $0.queue(request) }
        available.signal()
    }

    /// Queues a store, as a vCPU does that posts it and goes on.
    ///
    /// - Parameters:
    ///   - offset: bytes from the start of the range.
    ///   - length: bytes, 1 to 8.
    ///   - value: what is stored.
    ///   - rangeID: the range.
    ///   - vcpu: index of the vCPU.
    public func store(_ offset: UInt64, length: Int, _ value: UInt64, rangeID: UInt32 = 0, vcpu: UInt32 = 0) {
        submit(
            ForwardedRequest(
                sequence: makeSequence(), .store, offset: offset, length: length, data: value, rangeID: rangeID,
                vcpu: vcpu))
    }

    /// Queues a load and waits, as a vCPU does: for its reply, and for the replies to its older stores. A load that
    /// shadow memory answers is not queued.
    ///
    /// A server must be running on another thread.
    ///
    /// - Parameters:
    ///   - offset: bytes from the start of the range.
    ///   - length: bytes, 1 to 8.
    ///   - rangeID: the range.
    ///   - vcpu: index of the vCPU.
    /// - Returns: what the device replied.
    public func load(_ offset: UInt64, length: Int, rangeID: UInt32 = 0, vcpu: UInt32 = 0) -> UInt64 {
        if shadowed(offset, length, rangeID) != nil {
            waitForStores(of: vcpu)
            if let value = shadowed(offset, length, rangeID) { return value }
        }
        let sequence = makeSequence()
        let waiter = Waiter(sequence: sequence, vcpu: vcpu, semaphore: Semaphore())
        state.withLock { state in
            state.waiters.append(waiter)
            state.queue(
                ForwardedRequest(
                    sequence: sequence, .load, offset: offset, length: length, rangeID: rangeID, vcpu: vcpu))
        }
        available.signal()
        waiter.semaphore.wait()
        return state.withLock { $0.values[sequence] ?? .max }
    }

    /// The value of a load in shadow memory.
    private func shadowed(_ offset: UInt64, _ length: Int, _ rangeID: UInt32) -> UInt64? {
        guard let shadow = shadow.withLock({ $0 }),
            let place = shadow.map.imageOffset(of: offset, length: length, in: rangeID)
        else { return nil }
        return try? shadow.image.load(at: place, length: length)
    }

    /// Waits until all stores of the vCPU have been replied to.
    private func waitForStores(of vcpu: UInt32) {
        let waiter = Waiter(sequence: makeSequence(), vcpu: vcpu, semaphore: Semaphore())
        let isWaiting = state.withLock { state in
            guard state.postedStores[vcpu, default: 0] > 0 else { return false }
            // It waits for no reply of its own.
            state.values[waiter.sequence] = 0
            state.waiters.append(waiter)
            return true
        }
        if isWaiting { waiter.semaphore.wait() }
    }

    /// Gives a request up, as the kernel does after a timeout: a later reply to it is stale.
    ///
    /// - Returns: false if it was not delivered, or replied to already.
    @discardableResult
    public func retire(_ sequence: UInt64) -> Bool {
        state.withLock { state in
            guard let request = state.sent.removeValue(forKey: sequence) else { return false }
            state.retired.insert(sequence)
            state.values[sequence] = .max
            state.complete(request)
            return true
        }
    }

    /// Ends the virtual machine: what is queued is still delivered, then transports say that it is gone.
    public func end() {
        state.withLock { $0.ended = true }
        available.signal()
    }

    /// All replies so far, in the order in which they came.
    public var replies: [ForwardedReply] {
        state.withLock { $0.replies }
    }

    /// How many requests were delivered and not replied to.
    public var owed: Int {
        state.withLock { $0.sent.count }
    }

    // MARK: The transport's side

    /// Answers loads from an image of its own from here on, if the bus has shadow memory.
    func placeShadow(_ map: ShadowMap, _ fill: (borrowing ShadowImage) -> Void) throws(Errno) -> ShadowImage? {
        guard hasShadow else { return nil }
        let file = try OwnedDescriptor.memoryFile(count: map.imageSize)
        let image = try ShadowImage(mapping: file, size: map.imageSize)
        fill(image)
        let mine = Shadow(map, try ShadowImage(mapping: file, size: map.imageSize))
        shadow.withLock { $0 = mine }
        return image
    }

    /// Takes a reply.
    ///
    /// - Returns: whether it came in time.
    /// - Throws: EINVAL if it answers nothing that is owed.
    func accept(_ reply: ForwardedReply) throws(Errno) -> Bool {
        try state.withLock { state throws(Errno) in
            if state.retired.remove(reply.sequence) != nil { return false }
            guard let request = state.sent.removeValue(forKey: reply.sequence), request.kind == reply.kind else {
                throw .invalidArgument
            }
            state.replies.append(reply)
            state.values[reply.sequence] = reply.data
            state.complete(request)
            return true
        }
    }

    /// Waits for requests and takes as many as fit; 0 at the end.
    func take(_ requests: inout MutableSpan<ForwardedRequest>) throws(Errno) -> Int {
        while true {
            let (count, ended) = state.withLock { state in (state.deliver(&requests), state.ended) }
            if count > 0 { return count }
            if ended {
                available.signal()  // For the next transport that waits.
                return 0
            }
            try available.waitInterruptibly()
        }
    }
}

extension InMemoryBus.State {
    mutating func makeSequence() -> UInt64 {
        made &+= 1
        // Odd, so that no two products are the same.
        return made &* 0x9e37_79b9_7f4a_7c15
    }

    mutating func queue(_ request: ForwardedRequest) {
        pending.append(request)
        if request.kind == .store { postedStores[request.vcpu, default: 0] += 1 }
    }

    mutating func deliver(_ requests: inout MutableSpan<ForwardedRequest>) -> Int {
        let count = min(requests.count, pending.count)
        for index in 0..<count {
            requests[index] = pending[index]
            sent[pending[index].sequence] = pending[index]
        }
        pending.removeFirst(count)
        return count
    }

    /// Wakes whom a request kept waiting.
    mutating func complete(_ request: ForwardedRequest) {
        if request.kind == .store { postedStores[request.vcpu, default: 1] -= 1 }
        waiters.removeAll { waiter in
            let isDone = values[waiter.sequence] != nil && postedStores[waiter.vcpu, default: 0] == 0
            if isDone { waiter.semaphore.signal() }
            return isDone
        }
    }
}
