// Command peer judges documents as Istio does: one request a line in, as JSON, one verdict a line out.
//
// A document of a kind goes the way that Istio's webhook sends it. MeshConfig, ProxyConfig and MeshNetworks are laid over
// Istio's defaults, as at the start of its control plane. A request with a function is for one of Istio's small checks.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"
	_ "unsafe" // for the names of functions that are not exported

	"github.com/hashicorp/go-multierror"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	mesh "istio.io/api/mesh/v1alpha1"
	"istio.io/istio/pilot/pkg/config/kube/crd"
	defaults "istio.io/istio/pkg/config/mesh"
	"istio.io/istio/pkg/config/schema/collections"
	"istio.io/istio/pkg/config/schema/resource"
	"istio.io/istio/pkg/config/validation"
	"istio.io/istio/pkg/config/validation/agent"
	"istio.io/istio/pkg/log"
	"istio.io/istio/pkg/util/protomarshal"
)

type request struct {
	Kind     string          `json:"kind"`
	Document json.RawMessage `json:"document"`
	Function string          `json:"function"`
	Args     []any           `json:"args"`
}

type verdict struct {
	// Why the document is no message of its kind.
	Unread   string   `json:"unread,omitempty"`
	Errors   []string `json:"errors"`
	Warnings []string `json:"warnings"`
}

//go:linkname extensionProviders istio.io/istio/pkg/config/validation/agent.validateExtensionProvider
func extensionProviders(*mesh.MeshConfig) error

//go:linkname localities istio.io/istio/pkg/config/validation/agent.validateLocalities
func localities([]string) error

//go:linkname providerService istio.io/istio/pkg/config/validation/agent.validateExtensionProviderService
func providerService(string) error

var texts = map[string]func(string) error{
	"ValidateFQDN":                          agent.ValidateFQDN,
	"ValidateHTTPHeaderNameOrJwtClaimRoute": validation.ValidateHTTPHeaderNameOrJwtClaimRoute,
	"ValidateHTTPHeaderValue":               validation.ValidateHTTPHeaderValue,
	"ValidateIPSubnet":                      agent.ValidateIPSubnet,
	"ValidatePortName":                      validation.ValidatePortName,
	"ValidateProbeHeaderName":               validation.ValidateProbeHeaderName,
	"ValidateProxyAddress":                  agent.ValidateProxyAddress,
	"ValidateStrictHTTPHeaderName":          validation.ValidateStrictHTTPHeaderName,
	"ValidateTrustDomain":                   agent.ValidateTrustDomain,
	"ValidateWildcardDomain":                agent.ValidateWildcardDomain,
	"validateExtensionProviderService":      providerService,
}

func main() {
	options := log.DefaultOptions()
	options.SetDefaultOutputLevel("all", log.NoneLevel)
	if err := log.Configure(options); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	in := json.NewDecoder(bufio.NewReader(os.Stdin))
	out := bufio.NewWriter(os.Stdout)
	defer out.Flush()
	write := json.NewEncoder(out)
	for in.More() {
		var asked request
		if err := in.Decode(&asked); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		_ = write.Encode(judge(asked))
	}
}

func judge(asked request) (said verdict) {
	defer func() {
		if broken := recover(); broken != nil {
			said = verdict{Unread: fmt.Sprintf("panic: %v", broken)}
		}
	}()
	if asked.Function != "" {
		return verdict{Errors: sentences(function(asked.Function, asked.Args))}
	}
	switch asked.Kind {
	case "MeshConfig":
		return meshConfig(string(asked.Document))
	case "ProxyConfig of a mesh":
		config, err := defaults.MergeProxyConfig(string(asked.Document), defaults.DefaultProxyConfig())
		return settled(err, func() (error, error) { return agent.ValidateMeshConfigProxyConfig(config).Unwrap() })
	case "MeshNetworks":
		networks := &mesh.MeshNetworks{}
		err := protomarshal.ApplyYAML(string(asked.Document), networks)
		return settled(err, func() (error, error) { return nil, agent.ValidateMeshNetworks(networks) })
	default:
		return object(asked.Document)
	}
}

func meshConfig(document string) verdict {
	config := defaults.DefaultMeshConfig()
	// Those of the defaults are right, and are found in no document.
	config.ExtensionProviders = nil
	own := struct {
		DefaultConfig json.RawMessage `json:"defaultConfig"`
	}{}
	err := json.Unmarshal([]byte(document), &own)
	base := proto.Clone(config.DefaultConfig).(*mesh.ProxyConfig)
	if err == nil {
		err = protomarshal.ApplyYAML(document, config)
	}
	config.DefaultConfig = base
	if err == nil && len(own.DefaultConfig) > 0 {
		config.DefaultConfig, err = defaults.MergeProxyConfig(string(own.DefaultConfig), base)
	}
	return settled(err, func() (error, error) {
		warnings, errs := agent.ValidateMeshConfig(config)
		// Istio only logs what is wrong with these.
		return warnings, agent.AppendErrors(errs, extensionProviders(config))
	})
}

func object(document json.RawMessage) verdict {
	var read crd.IstioKind
	if err := json.Unmarshal(document, &read); err != nil {
		return verdict{Unread: err.Error()}
	}
	kind := read.GroupVersionKind()
	schema, found := collections.PilotGatewayAPI().FindByGroupKind(resource.FromKubernetesGVK(&kind))
	if !found {
		return verdict{Unread: "no kind of Istio's"}
	}
	config, err := crd.ConvertObject(schema, &read, "cluster.local")
	return settled(err, func() (error, error) { return schema.ValidateConfig(*config) })
}

func settled(unread error, check func() (error, error)) verdict {
	if unread != nil {
		return verdict{Unread: unread.Error()}
	}
	warnings, errs := check()
	return verdict{Errors: sentences(errs), Warnings: sentences(warnings)}
}

func sentences(err error) []string {
	var many *multierror.Error
	if err == nil {
		return nil
	}
	if !errors.As(err, &many) {
		return []string{err.Error()}
	}
	var all []string
	for _, one := range many.Errors {
		all = append(all, one.Error())
	}
	return all
}

func function(name string, args []any) error {
	if check, found := texts[name]; found {
		return check(args[0].(string))
	}
	number := func() int64 { return int64(args[0].(float64)) }
	switch name {
	case "ValidatePort":
		return agent.ValidatePort(int(number()))
	case "ValidateWildcardDomainForVirtualServiceBoundToGateway":
		return agent.ValidateWildcardDomainForVirtualServiceBoundToGateway(args[0].(bool), args[1].(string))
	case "ValidateConnectTimeout":
		return agent.ValidateConnectTimeout(durationpb.New(time.Duration(number())))
	case "ValidateDrainDuration":
		return agent.ValidateDrainDuration(durationpb.New(time.Duration(number())))
	case "validateLocalities":
		var list []string
		for _, one := range args[0].([]any) {
			list = append(list, one.(string))
		}
		return localities(list)
	default:
		return errors.New("no such function")
	}
}
