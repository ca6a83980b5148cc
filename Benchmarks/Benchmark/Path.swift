// SPDX-License-Identifier: Apache-2.0
//
// The paths that are compared: how an access comes to its device.

import CBenchmark

/// How an access comes to its device.
public enum Path: String, CaseIterable, Hashable, Sendable {
    /// To the VMM, which emulates the device itself: no isolation.
    case exit
    /// To the VMM, and from there as a message over a stream socket, for which it does not wait.
    case socketPosted = "socket-posted"
    /// To the VMM, and from there as a message over a SEQPACKET socket, and back.
    case socket
    /// To the VMM, and from there as a message over a stream socket, and back.
    case socketStream = "socket-stream"
    /// To the VMM, and from there over a pipe, and back over another.
    case pipes
    /// To the VMM, and from there through shared memory; a side that waits sleeps on a futex.
    case sharedMemoryFutex = "shm-futex"
    /// To the VMM, and from there through shared memory; a side that waits spins.
    case sharedMemorySpin = "shm-spin"
    /// The kernel signals an eventfd, for which nobody waits.
    case ioeventfd
    /// The kernel signals an eventfd, which the emulation process reads.
    case ioeventfdWaiter = "ioeventfd-waiter"
    /// The kernel collects stores in a ring, from which the VMM takes them.
    case coalesced
    /// Through the emulation descriptor, by read and write.
    case descriptorReadWrite = "fd-readwrite"
    /// Through the emulation descriptor, by `KVM_DEV_USER_EXCHANGE`.
    case descriptorExchange = "fd-exchange"
    /// From the device's shadow image.
    case descriptorShadow = "fd-shadow"

    var raw: cbench_path {
        switch self {
        case .exit: CBENCH_EXIT
        case .socketPosted: CBENCH_SOCKET_POSTED
        case .socket: CBENCH_SOCKET
        case .socketStream: CBENCH_SOCKET_STREAM
        case .pipes: CBENCH_PIPES
        case .sharedMemoryFutex: CBENCH_SHM_FUTEX
        case .sharedMemorySpin: CBENCH_SHM_SPIN
        case .ioeventfd: CBENCH_IOEVENTFD
        case .ioeventfdWaiter: CBENCH_IOEVENTFD_WAITER
        case .coalesced: CBENCH_COALESCED
        case .descriptorReadWrite: CBENCH_FD_READWRITE
        case .descriptorExchange: CBENCH_FD_EXCHANGE
        case .descriptorShadow: CBENCH_FD_SHADOW
        }
    }

    /// Whether the module takes part.
    public var isForwarded: Bool {
        [.descriptorReadWrite, .descriptorExchange, .descriptorShadow].contains(self)
    }

    /// Whether there is an emulation process.
    public var isIsolated: Bool { ![.exit, .ioeventfd, .coalesced].contains(self) }

    /// Whether the kernel only says that there was a store, and nobody gets its value.
    var isSignal: Bool { [.ioeventfd, .ioeventfdWaiter].contains(self) }

    /// Whether several vCPUs can use it at once.
    var allowsManyProcessors: Bool { isForwarded || self == .exit }

    /// Whether an operation makes sense on it.
    public func allows(_ operation: Operation) -> Bool {
        switch self {
        case .ioeventfd, .ioeventfdWaiter, .coalesced, .socketPosted: !operation.loads
        case .descriptorShadow: operation == .load
        default: true
        }
    }
}
