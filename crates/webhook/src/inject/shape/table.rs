//! The table itself. A field is `name`, then marks, then its type:
//!
//! `*` a pointer in Go, so that zero is kept; `!` always there, as `{}`; `!0`, `!zero` and `!false` always there, as the
//! quantity 0, the number 0 and false; `!null` there in JSON text alone; `=Name` the name of the Go field where it is not the JSON name with a capital;
//! `:Type` a struct; `:[Type]` a list of it; `@key` how a list merges, `@+` for a list of scalars that merges as a set;
//! `:{}` a map; `:{q}` a map of quantities; `:q` a quantity; `:[]` a list of what the table does not know.

use std::collections::HashMap;
use std::sync::LazyLock;

use serde_json::{Value, json};

/// A Go struct.
#[derive(Debug)]
pub struct Shape {
    pub fields: Vec<Field>,
}

#[derive(Debug)]
pub struct Field {
    /// In JSON.
    pub name: &'static str,
    /// In Go, and so in templates.
    pub go_name: String,
    pub pointer: bool,
    pub always: Option<Always>,
    pub kind: Type,
}

/// What stands for a field that was not given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Always {
    EmptyObject,
    ZeroQuantity,
    Zero,
    False,
    Null,
}

impl Always {
    /// Where it is part of the canonical form, and not of Go's text alone.
    pub fn in_documents(self) -> Option<Value> {
        (self != Self::Null).then(|| self.in_go())
    }

    pub fn in_go(self) -> Value {
        match self {
            Self::EmptyObject => json!({}),
            Self::ZeroQuantity => json!("0"),
            Self::Zero => json!(0),
            Self::False => json!(false),
            Self::Null => Value::Null,
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
pub enum Type {
    /// A scalar, or what the table does not look into.
    Plain,
    Struct(&'static str),
    List {
        of: Option<&'static str>,
        merge: Merge,
    },
    Map,
    Quantities,
    Quantity,
}

/// What a strategic merge does with a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Merge {
    Replace,
    /// Items are the same when they agree in this field.
    ByKey(&'static str),
    Union,
}

impl Shape {
    /// The shape of a name that the table has.
    pub fn named(name: &str) -> &'static Self {
        SHAPES.get(name).unwrap_or(&NOTHING)
    }

    pub fn pod() -> &'static Self {
        Self::named("Pod")
    }

    pub fn container() -> &'static Self {
        Self::named("Container")
    }

    /// The shape of a kind that makes pods.
    pub fn of_kind(kind: &str) -> Option<&'static Self> {
        TABLE.iter().any(|(name, _)| *name == kind).then(|| Self::named(kind))
    }

    pub fn field(&self, name: &str) -> Option<&Field> {
        self.fields.iter().find(|field| field.name == name)
    }
}

static NOTHING: Shape = Shape { fields: Vec::new() };

static SHAPES: LazyLock<HashMap<&'static str, Shape>> = LazyLock::new(|| {
    let shape = |text: &'static str| Shape { fields: text.split_whitespace().map(Field::parse).collect() };
    TABLE.iter().map(|(name, text)| (*name, shape(text))).collect()
});

/// Words that Go writes in capitals inside of names.
const INITIALISMS: &[(&str, &str)] = &[
    ("apiVersion", "APIVersion"),
    ("dnsConfig", "DNSConfig"),
    ("dnsPolicy", "DNSPolicy"),
    ("grpc", "GRPC"),
    ("httpGet", "HTTPGet"),
    ("httpHeaders", "HTTPHeaders"),
    ("ip", "IP"),
    ("tcpSocket", "TCPSocket"),
    ("tty", "TTY"),
    ("uid", "UID"),
    ("fsGroup", "FSGroup"),
    ("fsGroupChangePolicy", "FSGroupChangePolicy"),
    ("fsType", "FSType"),
    ("csi", "CSI"),
    ("fc", "FC"),
    ("nfs", "NFS"),
    ("rbd", "RBD"),
    ("iscsi", "ISCSI"),
    ("os", "OS"),
];

impl Field {
    fn parse(text: &'static str) -> Self {
        let end = text.find(['*', '!', '=', ':']).unwrap_or(text.len());
        let (name, marks) = text.split_at(end);
        let (marks, kind) =
            marks.split_once(':').map_or((marks, Type::Plain), |(marks, kind)| (marks, Type::parse(kind)));
        let (marks, go) = marks.split_once('=').map_or((marks, None), |(marks, go)| (marks, Some(go.to_owned())));
        let always = marks.split_once('!').map(|(_, default)| match default {
            "null" => Always::Null,
            "0" => Always::ZeroQuantity,
            "zero" => Always::Zero,
            "false" => Always::False,
            _ => Always::EmptyObject,
        });
        let go_name = go.unwrap_or_else(|| go_name(name));
        Self { name, go_name, pointer: marks.starts_with('*'), always, kind }
    }
}

/// A JSON name as Go's types have it.
pub fn go_name(name: &str) -> String {
    if let Some((_, known)) = INITIALISMS.iter().find(|(known, _)| *known == name) {
        return (*known).to_owned();
    }
    let mut letters = name.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

impl Type {
    fn parse(text: &'static str) -> Self {
        let (kind, merge) = match text.split_once('@') {
            Some((kind, "+")) => (kind, Merge::Union),
            Some((kind, key)) => (kind, Merge::ByKey(key)),
            None => (text, Merge::Replace),
        };
        match kind {
            "{}" => Self::Map,
            "{q}" => Self::Quantities,
            "q" => Self::Quantity,
            "[]" => Self::List { of: None, merge },
            _ => match kind.strip_prefix('[').and_then(|kind| kind.strip_suffix(']')) {
                Some(item) => Self::List { of: Some(item), merge },
                None => Self::Struct(kind),
            },
        }
    }
}

/// `core/v1`, `apps/v1`, `batch/v1` and OpenShift's `apps/v1`, in the order of the Go types.
const TABLE: &[(&str, &str)] = &[
    ("Pod", "kind apiVersion metadata!:ObjectMeta spec!:PodSpec status!"),
    (
        "ObjectMeta",
        "name generateName selfLink namespace uid resourceVersion generation creationTimestamp deletionTimestamp* \
         deletionGracePeriodSeconds* labels:{} annotations:{} ownerReferences:[OwnerReference]@uid finalizers:[]@+ \
         managedFields:[]",
    ),
    ("OwnerReference", "apiVersion kind name uid controller* blockOwnerDeletion*"),
    (
        "PodSpec",
        "volumes:[Volume]@name initContainers:[Container]@name containers!null:[Container]@name \
         ephemeralContainers:[Container]@name restartPolicy terminationGracePeriodSeconds* activeDeadlineSeconds* dnsPolicy \
         nodeSelector:{} serviceAccountName serviceAccount=DeprecatedServiceAccount automountServiceAccountToken* nodeName \
         hostNetwork hostPID hostIPC shareProcessNamespace* securityContext:PodSecurityContext \
         imagePullSecrets:[LocalObjectReference]@name hostname subdomain affinity schedulerName tolerations:[Toleration] \
         hostAliases:[HostAlias]@ip priorityClassName priority* dnsConfig:PodDNSConfig readinessGates:[] runtimeClassName* \
         enableServiceLinks* preemptionPolicy* overhead:{q} \
         topologySpreadConstraints:[TopologySpreadConstraint]@topologyKey setHostnameAsFQDN* os hostUsers* \
         schedulingGates:[SchedulingGate]@name resourceClaims:[PodResourceClaim]@name resources*:ResourceRequirements",
    ),
    ("LocalObjectReference", "name"),
    ("SchedulingGate", "name"),
    ("PodResourceClaim", "name resourceClaimName* resourceClaimTemplateName*"),
    ("Toleration", "key operator value effect tolerationSeconds*"),
    ("HostAlias", "ip hostnames:[]"),
    ("PodDNSConfig", "nameservers:[] searches:[] options:[]"),
    (
        "TopologySpreadConstraint",
        "maxSkew topologyKey whenUnsatisfiable labelSelector:LabelSelector minDomains* nodeAffinityPolicy* nodeTaintsPolicy* \
         matchLabelKeys:[]",
    ),
    ("LabelSelector", "matchLabels:{} matchExpressions:[]"),
    (
        "PodSecurityContext",
        "seLinuxOptions windowsOptions runAsUser* runAsGroup* runAsNonRoot* supplementalGroups:[] supplementalGroupsPolicy* \
         fsGroup* sysctls:[Sysctl] fsGroupChangePolicy* seccompProfile appArmorProfile seLinuxChangePolicy*",
    ),
    ("Sysctl", "name value*"),
    (
        "Container",
        "name image command:[] args:[] workingDir ports:[ContainerPort]@containerPort envFrom:[EnvFromSource] \
         env:[EnvVar]@name resources!:ResourceRequirements resizePolicy:[] restartPolicy* restartPolicyRules:[] \
         volumeMounts:[VolumeMount]@mountPath volumeDevices:[VolumeDevice]@devicePath livenessProbe:Probe \
         readinessProbe:Probe startupProbe:Probe lifecycle:Lifecycle terminationMessagePath terminationMessagePolicy \
         imagePullPolicy securityContext:SecurityContext stdin stdinOnce tty targetContainerName",
    ),
    ("ContainerPort", "name hostPort containerPort* protocol hostIP=HostIP"),
    ("EnvFromSource", "prefix configMapRef:OptionalReference secretRef:OptionalReference"),
    ("OptionalReference", "name optional*"),
    ("EnvVar", "name value valueFrom:EnvVarSource"),
    (
        "EnvVarSource",
        "fieldRef:ObjectFieldSelector resourceFieldRef:ResourceFieldSelector configMapKeyRef:KeySelector \
         secretKeyRef:KeySelector fileKeyRef",
    ),
    ("ObjectFieldSelector", "apiVersion fieldPath"),
    ("ResourceFieldSelector", "containerName resource divisor!0:q"),
    ("KeySelector", "name key optional*"),
    ("ResourceRequirements", "limits:{q} requests:{q} claims:[]"),
    ("VolumeMount", "name readOnly recursiveReadOnly* mountPath subPath mountPropagation* subPathExpr"),
    ("VolumeDevice", "name devicePath"),
    (
        "Probe",
        "exec:ExecAction httpGet:HTTPGetAction tcpSocket:TCPSocketAction grpc:GRPCAction initialDelaySeconds timeoutSeconds \
         periodSeconds successThreshold failureThreshold terminationGracePeriodSeconds*",
    ),
    ("ExecAction", "command:[]"),
    ("HTTPGetAction", "path port* host scheme httpHeaders:[HTTPHeader]"),
    ("HTTPHeader", "name value*"),
    ("TCPSocketAction", "port* host"),
    ("GRPCAction", "port* service*!null"),
    ("Lifecycle", "postStart:LifecycleHandler preStop:LifecycleHandler stopSignal*"),
    ("LifecycleHandler", "exec:ExecAction httpGet:HTTPGetAction tcpSocket:TCPSocketAction sleep:SleepAction"),
    ("SleepAction", "seconds*"),
    (
        "SecurityContext",
        "capabilities:Capabilities privileged* seLinuxOptions windowsOptions runAsUser* runAsGroup* runAsNonRoot* \
         readOnlyRootFilesystem* allowPrivilegeEscalation* procMount* seccompProfile appArmorProfile",
    ),
    ("Capabilities", "add:[] drop:[]"),
    (
        "Volume",
        "name hostPath:HostPath emptyDir:EmptyDir gcePersistentDisk=GCEPersistentDisk awsElasticBlockStore=AWSElasticBlockStore \
         gitRepo secret:SecretVolume nfs iscsi glusterfs persistentVolumeClaim:ClaimVolume rbd flexVolume cinder \
         cephfs=CephFS flocker downwardAPI:DownwardVolume fc azureFile configMap:ConfigMapVolume vsphereVolume quobyte \
         azureDisk photonPersistentDisk projected:ProjectedVolume portworxVolume scaleIO storageos=StorageOS csi:CSIVolume \
         ephemeral image",
    ),
    ("HostPath", "path type*"),
    ("EmptyDir", "medium sizeLimit*:q"),
    ("SecretVolume", "secretName items:[KeyToPath] defaultMode* optional*"),
    ("ConfigMapVolume", "name items:[KeyToPath] defaultMode* optional*"),
    ("KeyToPath", "key path mode*"),
    ("ClaimVolume", "claimName readOnly"),
    ("DownwardVolume", "items:[DownwardFile] defaultMode*"),
    ("DownwardFile", "path fieldRef:ObjectFieldSelector resourceFieldRef:ResourceFieldSelector mode*"),
    ("ProjectedVolume", "sources:[VolumeProjection] defaultMode*"),
    (
        "VolumeProjection",
        "secret:ConfigMapProjection downwardAPI:DownwardVolume configMap:ConfigMapProjection \
         serviceAccountToken:TokenProjection clusterTrustBundle podCertificate",
    ),
    ("ConfigMapProjection", "name items:[KeyToPath] optional*"),
    ("TokenProjection", "audience expirationSeconds* path"),
    ("CSIVolume", "driver readOnly* fsType* volumeAttributes:{} nodePublishSecretRef:LocalObjectReference"),
    ("PodTemplate", "metadata!:ObjectMeta spec!:PodSpec"),
    ("Deployment", "kind apiVersion metadata!:ObjectMeta spec!:DeploymentSpec status!"),
    (
        "DeploymentSpec",
        "replicas* selector:LabelSelector template!:PodTemplate strategy! minReadySeconds revisionHistoryLimit* paused \
         progressDeadlineSeconds*",
    ),
    ("ReplicaSet", "kind apiVersion metadata!:ObjectMeta spec!:ReplicaSetSpec status!:ReplicaStatus"),
    ("ReplicaSetSpec", "replicas* minReadySeconds selector:LabelSelector template!:PodTemplate"),
    ("ReplicaStatus", "replicas!zero"),
    (
        "ReplicationController",
        "kind apiVersion metadata!:ObjectMeta spec!:ReplicationControllerSpec status!:ReplicaStatus",
    ),
    ("ReplicationControllerSpec", "replicas* minReadySeconds selector:{} template:PodTemplate"),
    ("DaemonSet", "kind apiVersion metadata!:ObjectMeta spec!:DaemonSetSpec status!:DaemonSetStatus"),
    (
        "DaemonSetSpec",
        "selector:LabelSelector template!:PodTemplate updateStrategy! minReadySeconds revisionHistoryLimit*",
    ),
    (
        "DaemonSetStatus",
        "currentNumberScheduled!zero numberMisscheduled!zero desiredNumberScheduled!zero numberReady!zero",
    ),
    ("StatefulSet", "kind apiVersion metadata!:ObjectMeta spec!:StatefulSetSpec status!:StatefulSetStatus"),
    (
        "StatefulSetSpec",
        "replicas* selector:LabelSelector template!:PodTemplate volumeClaimTemplates:[] serviceName podManagementPolicy \
         updateStrategy! revisionHistoryLimit* minReadySeconds persistentVolumeClaimRetentionPolicy ordinals",
    ),
    ("StatefulSetStatus", "replicas!zero availableReplicas!zero"),
    ("Job", "kind apiVersion metadata!:ObjectMeta spec!:JobSpec status!"),
    (
        "JobSpec",
        "parallelism* completions* activeDeadlineSeconds* podFailurePolicy successPolicy backoffLimit* backoffLimitPerIndex* \
         maxFailedIndexes* selector:LabelSelector manualSelector* template!:PodTemplate ttlSecondsAfterFinished* \
         completionMode* suspend* podReplacementPolicy* managedBy*",
    ),
    ("CronJob", "kind apiVersion metadata!:ObjectMeta spec!:CronJobSpec status!"),
    (
        "CronJobSpec",
        "schedule timeZone* startingDeadlineSeconds* concurrencyPolicy suspend* jobTemplate!:JobTemplate \
         successfulJobsHistoryLimit* failedJobsHistoryLimit*",
    ),
    ("JobTemplate", "metadata!:ObjectMeta spec!:JobSpec"),
    (
        "DeploymentConfig",
        "kind apiVersion metadata!:ObjectMeta spec!:DeploymentConfigSpec status!:DeploymentConfigStatus",
    ),
    (
        "DeploymentConfigSpec",
        "strategy!:DeploymentConfigStrategy minReadySeconds triggers:[] replicas!zero revisionHistoryLimit* test!false paused \
         selector:{} template:PodTemplate",
    ),
    (
        "DeploymentConfigStrategy",
        "type customParams recreateParams rollingParams resources!:ResourceRequirements labels:{} annotations:{} \
         activeDeadlineSeconds*",
    ),
    (
        "DeploymentConfigStatus",
        "latestVersion!zero observedGeneration!zero replicas!zero updatedReplicas!zero availableReplicas!zero \
         unavailableReplicas!zero",
    ),
];
