// Command peer makes filters and node proxies' policies of AuthorizationPolicies as Istio does: one request a line in, one answer a
// line out, both JSON.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	_ "unsafe" // for the names of functions that are not exported

	"google.golang.org/protobuf/proto"
	meshconfig "istio.io/api/mesh/v1alpha1"
	authz "istio.io/api/security/v1beta1"
	security "istio.io/client-go/pkg/apis/security/v1"
	"istio.io/istio/pilot/pkg/config/kube/crd"
	"istio.io/istio/pilot/pkg/config/memory"
	"istio.io/istio/pilot/pkg/features"
	"istio.io/istio/pilot/pkg/model"
	"istio.io/istio/pilot/pkg/security/authz/builder"
	"istio.io/istio/pilot/pkg/security/trustdomain"
	_ "istio.io/istio/pilot/pkg/serviceregistry/ambient"
	"istio.io/istio/pkg/config"
	"istio.io/istio/pkg/config/host"
	"istio.io/istio/pkg/config/schema/collections"
	"istio.io/istio/pkg/log"
	"istio.io/istio/pkg/util/protomarshal"
	wds "istio.io/istio/pkg/workloadapi/security"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

type request struct {
	Policies     string          `json:"policies"`
	Mesh         json.RawMessage `json:"mesh"`
	TrustDomains []string        `json:"trust_domains"`
	Several      bool            `json:"several"`
}

//go:linkname ambientPolicy istio.io/istio/pilot/pkg/serviceregistry/ambient.convertAuthorizationPolicy
func ambientPolicy(root string, policy *security.AuthorizationPolicy) (*wds.Authorization, *model.StatusMessage)

//go:linkname parse istio.io/istio/pilot/pkg/config/kube/crd.parseInputsImpl
func parse(text string, validate bool) ([]config.Config, []crd.IstioKind, error)

func listed[M proto.Message](messages []M) []json.RawMessage {
	out := []json.RawMessage{}
	for _, message := range messages {
		text, err := protomarshal.Marshal(message)
		if err != nil {
			panic(err)
		}
		out = append(out, text)
	}
	return out
}

func answer(line []byte) (map[string]any, error) {
	var r request
	if err := json.Unmarshal(line, &r); err != nil {
		return nil, err
	}
	configs, _, err := parse(r.Policies, false)
	if err != nil {
		return nil, err
	}
	validating, store := memory.Make(collections.Pilot), memory.MakeSkipValidation(collections.Pilot)
	ambient, refusals := []json.RawMessage{}, []string{}
	for _, config := range configs {
		if _, err := validating.Create(config); err != nil {
			refusals = append(refusals, err.Error())
		}
		if _, err := store.Create(config); err != nil {
			return nil, err
		}
		spec := config.Spec.(*authz.AuthorizationPolicy)
		policy := &security.AuthorizationPolicy{ObjectMeta: metav1.ObjectMeta{
			Name: config.Name, Namespace: config.Namespace, Annotations: config.Annotations,
		}}
		proto.Merge(&policy.Spec, spec)
		converted, _ := ambientPolicy("istio-system", policy)
		if converted == nil {
			ambient = append(ambient, json.RawMessage("null"))
		} else {
			ambient = append(ambient, listed([]*wds.Authorization{converted})...)
		}
	}
	mesh := &meshconfig.MeshConfig{}
	if len(r.Mesh) > 0 && string(r.Mesh) != "null" {
		if err := protomarshal.Unmarshal(r.Mesh, mesh); err != nil {
			return nil, err
		}
	}
	push := &model.PushContext{Mesh: mesh, AuthzPolicies: model.GetAuthorizationPolicies(&model.Environment{ConfigStore: store})}
	const service = "my-custom-ext-authz.foo.svc.cluster.local"
	push.ServiceIndex.HostnameAndNamespace = map[host.Name]map[string]*model.Service{service: {"foo": {Hostname: service}}}
	labels := map[string]string{"app": "httpbin", "version": "v1"}
	proxy := &model.Proxy{ID: "test-node", ConfigNamespace: "foo", Labels: labels,
		Metadata: &model.NodeMetadata{Labels: labels, Namespace: "foo"}}
	policies := push.AuthzPolicies.ListAuthorizationPolicies(model.PolicyMatcherForProxy(proxy))
	bundle := trustdomain.Bundle{TrustDomains: r.TrustDomains}
	features.EnableMultipleCustomAuthzProviders = r.Several
	out := map[string]any{"ambient": ambient, "refusals": refusals}
	for name, custom := range map[string]bool{"local": false, "custom": true} {
		built := builder.New(bundle, push, policies, builder.Option{IsCustomBuilder: custom})
		http, tcp := []json.RawMessage{}, []json.RawMessage{}
		if built != nil {
			http, tcp = listed(built.BuildHTTP()), listed(built.BuildTCP())
		}
		out["http_"+name], out["tcp_"+name] = http, tcp
	}
	return out, nil
}

func main() {
	for _, scope := range log.Scopes() {
		scope.SetOutputLevel(log.NoneLevel)
	}
	in := bufio.NewReaderSize(os.Stdin, 1<<20)
	out := bufio.NewWriter(os.Stdout)
	for {
		line, err := in.ReadBytes('\n')
		if len(line) == 0 || err != nil {
			break
		}
		result, err := answer(line)
		if err != nil {
			result = map[string]any{"error": err.Error()}
		}
		text, err := json.Marshal(result)
		if err != nil {
			panic(err)
		}
		fmt.Fprintf(out, "%s\n", text)
		out.Flush()
	}
}
