// SPDX-License-Identifier: Apache-2.0
//
// Errors say what was tried, what came back and what to do.

import KVM
import LinuxSystem
import SystemPackage
import Testing

@Suite("Errors of KVM calls") struct KVMErrorTests {
    @Test(
        "The common failures say what to do",
        arguments: [
            ("open /dev/kvm", Errno.noSuchFileOrDirectory, "modprobe"),
            ("open /dev/kvm", .permissionDenied, "group"),
            ("open /dev/kvm", Errno(rawValue: 19), "modprobe"),
            ("KVM_CREATE_DEVICE", Errno(rawValue: 19), "module loaded"),
            ("KVM_RUN", .ioError, "process that created"),
            ("KVM_CREATE_VCPU", .fileExists, "that id"),
        ])
    func advice(call: String, errno: Errno, advice: String) {
        let text = KVMError(call: call, errno: errno).description
        #expect(text.hasPrefix("\(call): \(errno): "))
        #expect(text.contains(advice))
    }

    @Test("Any other failure names the call and the kernel's answer")
    func plain() {
        #expect(KVMError(call: "KVM_RUN", errno: .badAddress).description == "KVM_RUN: \(Errno.badAddress)")
    }

    @Test("A missing device node is an error with its path")
    func missing() {
        #expect(throws: KVMError(call: "open /nonexistent/kvm", errno: .noSuchFileOrDirectory)) {
            _ = try KVMSystem(path: "/nonexistent/kvm")
        }
    }

    @Test("A file that is not KVM is an error, not a KVM of a strange version")
    func otherFile() {
        #expect(throws: KVMError(call: "KVM_GET_API_VERSION", errno: Errno(rawValue: 25))) {
            _ = try KVMSystem(path: "/dev/null")
        }
    }
}
