// SPDX-License-Identifier: Apache-2.0
//
// What a device of the loaded module can do, as either of its descriptors tells.

import CKVMUser

/// What a device offers. C: `struct kvm_dev_user_info`.
public struct DeviceInformation: Hashable, Sendable, Codable {
    /// Version of the kernel's side of the interface; this library speaks 1.
    public let abiVersion: UInt32
    /// Posted stores that may be pending and, separately, requests that may be read and not yet replied to.
    public let queueDepth: UInt32
    /// A range's id is below this.
    public let maximumRanges: UInt32
    /// A vCPU's index is below this.
    public let maximumVirtualCPUs: UInt32
    /// Optional parts that are present.
    public let features: Features
    /// Largest shadow image in bytes; 0 where there is none.
    public let maximumShadowSize: UInt64
    /// The present shadow image in bytes; 0 while there is none.
    public let shadowSize: UInt64

    /// Parts of the interface that a module may lack. C: `KVM_USER_FEATURE_*`.
    public struct Features: OptionSet, Hashable, Sendable, Codable {
        public let rawValue: UInt64

        public init(rawValue: UInt64) {
            self.rawValue = rawValue
        }

        /// KVM_DEV_USER_ON_CLOSE: what accesses get while no emulation descriptor is open can be chosen.
        public static let onClose = Features(rawValue: CKVMUSER_FEATURE_ON_CLOSE)
        /// KVM_DEV_USER_PARK and KVM_DEV_USER_RESUME: a signal can end a vCPU's wait and leave the request.
        public static let park = Features(rawValue: CKVMUSER_FEATURE_PARK)
        /// KVM_DEV_USER_EXCHANGE: replies and requests in one call.
        public static let exchange = Features(rawValue: CKVMUSER_FEATURE_EXCHANGE)
        /// KVM_DEV_USER_SHADOW_SIZE and KVM_DEV_USER_SHADOW_CTRL: loads can be answered without a request.
        public static let shadow = Features(rawValue: CKVMUSER_FEATURE_SHADOW)
        /// KVM_USER_REPLY_CUMULATIVE: one reply can acknowledge many stores.
        public static let cumulativeReplies = Features(rawValue: CKVMUSER_FEATURE_CUMULATIVE)
        /// KVM_DEV_USER_COALESCE: a thread can be woken once for several stores.
        public static let coalescing = Features(rawValue: CKVMUSER_FEATURE_COALESCE)
        /// KVM_DEV_USER_RING: requests and replies in memory, without a system call while both sides are awake.
        public static let ring = Features(rawValue: CKVMUSER_FEATURE_RING)
    }

    init(_ raw: kvm_dev_user_info) {
        abiVersion = raw.abi_version
        queueDepth = raw.queue_depth
        maximumRanges = raw.max_ranges
        maximumVirtualCPUs = raw.max_vcpus
        features = Features(rawValue: raw.features)
        maximumShadowSize = raw.max_shadow_size
        shadowSize = raw.shadow_size
    }
}
