// SPDX-License-Identifier: Apache-2.0
//
// A server on a thread of its own.

import LinuxSystem
import MMIOForwarding
import Synchronization
public import SystemPackage

/// A thread that runs one ``DeviceServer``: made by ``DeviceServer/start()``.
///
/// Every thread must be waited for, once, with ``wait()``.
public struct ServerThread: ~Copyable, Sendable {
    private let thread: NativeThread
    private let work: any ServerWork

    fileprivate init(_ work: any ServerWork) throws(Errno) {
        self.work = work
        thread = try NativeThread { work.run() }
    }

    /// Waits until the server returns. C: `pthread_join`.
    ///
    /// - Returns: why it returned.
    /// - Throws: what ``DeviceServer/run()`` threw.
    @discardableResult
    public consuming func wait() throws(Errno) -> ServerEnd {
        let work = work
        thread.join()
        return try work.result.get()
    }
}

extension DeviceServer where Transport: ~Copyable, Device: ~Copyable {
    /// Serves on a new thread.
    ///
    /// - Returns: the thread, to be waited for.
    /// - Throws: errno: EAGAIN if no thread is to be had.
    public consuming func start() throws(Errno) -> ServerThread where Transport: Sendable {
        try ServerThread(ServerJob(self))
    }
}

/// A server and what came of it, whatever its type.
private protocol ServerWork: AnyObject, Sendable {
    func run()
    var result: Result<ServerEnd, Errno> { get }
}

private final class ServerJob<Device: MMIODevice & ~Copyable, Transport: RequestTransport & ~Copyable & Sendable>:
    ServerWork
{
    private let server: Mutex<DeviceServer<Device, Transport>?>
    private let end = Mutex<Result<ServerEnd, Errno>>(.success(.stopped))

    init(_ server: consuming DeviceServer<Device, Transport>) {
        self.server = Mutex(server)
    }

    func run() {
        guard let server = server.withLock({ $0.take() }) else { return }
        do throws(Errno) {
            let end = try server.run()
            self.end.withLock { $0 = .success(end) }
        } catch {
            end.withLock { $0 = .failure(error) }
        }
    }

    var result: Result<ServerEnd, Errno> { end.withLock { $0 } }
}
