// A harness, not Jenkins: it reads the Jenkinsfile as Groovy, gives the steps it uses a meaning on
// this machine, and runs their `sh` for real. It knows nothing of Jenkins' own checks: CPS, the
// sandbox, plugins, declarative validation.
//
// Usage: groovy harness.groovy JENKINSFILE SETTINGS.json     (writes what happened as JSON to stdout)
// Settings: env, params, causes [class], credentials {id: [user, password], or [path] of a secret file}, remote,
// ref, scratch, workspaces (a folder that outlives the run, as agents' do), replaced {url: url}, restart (the stage
// that a run is restarted from, without the stashes and variables of the one before).
import groovy.json.JsonOutput
import groovy.json.JsonSlurperClassic

class Failure extends RuntimeException {
    Failure(String message) { super(message) }
}

class Pipeline {
    Map settings
    List events = Collections.synchronizedList([])
    Map stashes = Collections.synchronizedMap([:])
    boolean failed = false
    boolean started = false
    // Of the thread that runs a parallel branch: its node, its directory, its variables.
    static ThreadLocal<Map> here = new InheritableThreadLocal<Map>()
    Set busy = []
    Script jenkinsfile

    Map getEnv() { settings.env.withDefault { null } }
    Map getParams() { settings.params }
    Map getScm() { [remote: settings.remote, ref: settings.ref] }
    // Jenkins' currentBuild, as far as the Jenkinsfile uses it.
    List getBuildCauses(String kind) { settings.causes.findAll { it == kind } }

    // What is no step is a method of the Jenkinsfile's own.
    Object methodMissing(String name, Object arguments) {
        Object[] given = arguments
        if (!jenkinsfile.metaClass.respondsTo(jenkinsfile, name, given)) {
            throw new MissingMethodException(name, Pipeline, given)
        }
        jenkinsfile.invokeMethod(name, given)
    }

    void note(Map event) { events << event }

    // The sections of a declarative pipeline

    void pipeline(Closure body) {
        Map parts = new Section(this, ['agent', 'options', 'triggers', 'parameters', 'stages', 'post']).read(body)
        here.set([environ: [:]])
        try {
            new Stages(this).run(parts.stages)
        } catch (Failure failure) {
            failed = true
            note(step: 'failure', what: failure.message)
        }
        new Section(this, ['always']).read(parts.post).always.call()
    }

    void runStage(String name, Closure body) {
        started = started || !settings.restart || settings.restart == name
        if (!started) { return }
        Map parts = new Section(this, ['agent', 'options', 'environment', 'when', 'steps']).read(body)
        When asked = new When(this)
        boolean runs = !parts.when || asked.read(parts.when)
        // As Jenkins does: a stage's options, such as a lock, come before its condition unless it says so.
        if (parts.options && (runs || !asked.first)) {
            note(step: 'options', stage: name, names: new Names(this).read(parts.options))
        }
        if (!runs) {
            note(step: 'skip', stage: name)
            return
        }
        note(step: 'stage', stage: name)
        Map variables = parts.environment ? new Variables(this).read(parts.environment) : [:]
        Closure steps = { having(variables) { perform(parts.steps) } }
        String label = parts.agent ? new Agent(this).read(parts.agent) : null
        label ? node(label, steps) : steps()
    }

    void having(Map more, Closure body) {
        Map before = here.get()
        here.set(before + [environ: before.environ + more])
        try { body() } finally { here.set(before) }
    }

    void perform(Closure body) {
        body.delegate = this
        body.resolveStrategy = Closure.DELEGATE_FIRST
        body()
    }

    // Steps

    void node(String label, Closure body) {
        // As on an agent: a second job at the same time gets a workspace of its own.
        String name = label
        synchronized (busy) {
            for (int number = 2; name in busy; number++) { name = "${label}@${number}".toString() }
            busy << name
        }
        note(step: 'node', label: label)
        try { within(new File(settings.workspaces, name), body) } finally { synchronized (busy) { busy.remove(name) } }
    }

    void dir(String name, Closure body) {
        File folder = new File(name)
        within(folder.absolute ? folder : new File(here.get().folder, name), body)
    }

    String pwd(Map options = [:]) { here.get().folder.path + (options.tmp ? '@tmp' : '') }

    void within(File folder, Closure body) {
        folder.mkdirs()
        Map before = here.get()
        here.set(before + [folder: folder])
        try { perform(body) } finally { here.set(before) }
    }

    // Groovy's own follows links.
    void deleteDir() { assert ['rm', '-rf', '--', here.get().folder.path].execute().waitFor() == 0 }

    Map scmGit(Map options) {
        String url = options.userRemoteConfigs[0].url
        if (!settings.replaced[url]) { throw new Failure("the harness has no repository for ${url}") }
        [remote: settings.replaced[url], ref: options.branches[0].name]
    }

    void script(Closure body) { perform(body) }

    void error(String message) { throw new Failure(message) }

    void checkout(Map scm) {
        ['git init -q .', "git config remote.origin.url '${scm.remote}'",
         "git fetch -q origin '+refs/heads/*:refs/remotes/origin/*' '+${scm.ref}:refs/test/checkout'",
         'git checkout -q --force --detach refs/test/checkout'].each { run(it) }
    }

    Object sh(String command) { run(command); null }

    Object sh(Map options) {
        String out = run(options.script)
        options.returnStdout ? out : null
    }

    String run(String command) {
        File folder = here.get().folder
        if (folder == null) { throw new Failure("sh outside a node: ${command}") }
        folder.mkdirs()
        Map environ = settings.env.findAll { it.value != null } + settings.params + here.get().environ
        Process child = new ProcessBuilder('bash', '-ec', command).directory(folder).with {
            it.environment().putAll(environ.collectEntries { k, v -> [(k): v.toString()] })
            it.redirectError(ProcessBuilder.Redirect.appendTo(new File(settings.scratch, 'stderr.log')))
            it.start()
        }
        String out = child.inputStream.text
        int code = child.waitFor()
        note(step: 'sh', command: command, code: code, stale: environ.STALE, outdated: environ.OUTDATED, digest: environ.LAGO_IMAGES_PLAN_SHA256, ours: environ.LAGO_IMAGES_CHANGE_IS_OURS, folder: folder.path, tools: environ.TOOLS,
             secrets: environ.keySet().findAll {
                 it.startsWith('AWS_') && it.contains('KEY') || it == 'GITHUB_TOKEN' || it.endsWith('SIGNING_KEY')
             }.sort())
        if (code != 0) { throw new Failure("script returned exit code ${code}: ${command}") }
        out
    }

    Object readJSON(Map options) { new JsonSlurperClassic().parseText(options.text) }

    void stash(Map options) {
        File folder = here.get().folder
        List files = matching(folder, options.includes)
        if (!files && !options.allowEmpty) { throw new Failure("nothing to stash for ${options.includes}") }
        stashes[options.name] = files.collectEntries { [(relative(folder, it)): it.bytes] }
    }

    void unstash(Object name) {
        Map files = stashes[name.toString()]
        if (files == null) { throw new Failure("No such saved stash: ${name}") }
        files.each { path, bytes ->
            File file = new File(here.get().folder, path)
            file.parentFile.mkdirs()
            file.bytes = bytes
        }
    }

    void archiveArtifacts(Map options) {
        File folder = here.get().folder
        List files = matching(folder, options.artifacts)
        if (!files && !options.allowEmptyArchive) { throw new Failure("nothing to archive for ${options.artifacts}") }
        note(step: 'archive', files: files.collect { relative(folder, it) }.sort())
    }

    void junit(Map options) {
        File file = new File(here.get().folder, options.testResults)
        note(step: 'junit', xml: file.exists() ? file.text : null)
    }

    void parallel(Map branches) {
        List problems = Collections.synchronizedList([])
        List threads = branches.collect { name, body ->
            Map mine = here.get()
            Thread.start {
                here.set(mine)
                try { perform(body) } catch (Failure failure) { problems << "${name}: ${failure.message}" }
            }
        }
        threads*.join()
        if (problems) { throw new Failure(problems.join('; ')) }
    }

    void catchError(Map options, Closure body) {
        try {
            perform(body)
        } catch (Failure failure) {
            failed = true
            note(step: 'caught', what: failure.message, result: options.buildResult)
        }
    }

    void withEnv(List pairs, Closure body) {
        having(pairs.collectEntries { it.toString().split('=', 2) as List }) { perform(body) }
    }

    Map usernamePassword(Map options) { options }

    Map file(Map options) { options }

    void withCredentials(List wanted, Closure body) {
        Map found = wanted.collectEntries {
            List pair = settings.credentials[it.credentialsId]
            if (pair == null) { throw new Failure("no credentials ${it.credentialsId}") }
            it.variable ? [(it.variable): pair[0]] : [(it.usernameVariable): pair[0], (it.passwordVariable): pair[1]]
        }
        note(step: 'credentials', ids: wanted*.credentialsId)
        having(found) { perform(body) }
    }

    // Ant patterns, as far as the Jenkinsfile uses them.
    static List matching(File folder, String patterns) {
        List globs = patterns.split(',').collectMany { [it, it.replace('**/', '')] }.collect {
            java.nio.file.FileSystems.default.getPathMatcher("glob:${it.trim()}")
        }
        List found = []
        folder.eachFileRecurse(groovy.io.FileType.FILES) { file ->
            java.nio.file.Path path = folder.toPath().relativize(file.toPath())
            if (globs.any { it.matches(path) }) { found << file }
        }
        found
    }

    static String relative(File folder, File file) { folder.toPath().relativize(file.toPath()).toString() }
}

// Collects the parts of a section; an unknown part is a failure.
class Section {
    Pipeline pipeline
    List known
    Map parts = [:]
    Section(Pipeline pipeline, List known) { this.pipeline = pipeline; this.known = known }
    Map read(Closure body) {
        body.delegate = this
        body.resolveStrategy = Closure.DELEGATE_FIRST
        body()
        parts
    }
    Object getNone() { null }
    Object methodMissing(String name, Object arguments) {
        if (!(name in known)) { throw new Failure("the harness does not know ${name} here") }
        Object part = (arguments as List)[0]
        if (part instanceof Closure) { parts[name] = part }
        if (name == 'always') { Closure always = part; parts[name] = { pipeline.perform(always) } }
        null
    }
}

class Stages {
    Pipeline pipeline
    Stages(Pipeline pipeline) { this.pipeline = pipeline }
    void run(Closure body) {
        body.delegate = this
        body.resolveStrategy = Closure.DELEGATE_FIRST
        body()
    }
    void stage(String name, Closure body) { pipeline.runStage(name, body) }
}

class When {
    Pipeline pipeline
    boolean result = true
    boolean first = false
    When(Pipeline pipeline) { this.pipeline = pipeline }
    boolean read(Closure body) {
        body.delegate = this
        body.resolveStrategy = Closure.DELEGATE_FIRST
        body()
        result
    }
    void beforeAgent(boolean value) { assert value }
    void beforeOptions(boolean value) { first = value }
    void expression(Closure body) { result = result && body() }
}

class Agent {
    Pipeline pipeline
    String found
    Agent(Pipeline pipeline) { this.pipeline = pipeline }
    String read(Closure body) {
        body.delegate = this
        body.resolveStrategy = Closure.DELEGATE_FIRST
        body()
        found
    }
    void label(String name) { found = name }
}

class Names {
    Pipeline pipeline
    List names = []
    Names(Pipeline pipeline) { this.pipeline = pipeline }
    List read(Closure body) {
        body.delegate = this
        body.resolveStrategy = Closure.DELEGATE_FIRST
        body()
        names
    }
    Object methodMissing(String name, Object arguments) { names << name; null }
}

// NAME = 'value' in environment { }
class Variables {
    Pipeline pipeline
    Map values = [:]
    Variables(Pipeline pipeline) { this.pipeline = pipeline }
    Map read(Closure body) {
        body.delegate = this
        body.resolveStrategy = Closure.DELEGATE_FIRST
        body()
        values
    }
    Object getProperty(String name) {
        name in ['pipeline', 'values'] ? this.@"${name}" : pipeline.getProperty(name)
    }
    void setProperty(String name, Object value) {
        if (name in ['pipeline', 'values']) { this.@"${name}" = value } else { values[name] = value }
    }
}

Map settings = new JsonSlurperClassic().parse(new File(args[1]))
Pipeline pipeline = new Pipeline(settings: settings)
Binding binding = new Binding([env: pipeline.env, params: pipeline.params, scm: pipeline.scm, currentBuild: pipeline])
Script jenkinsfile = new GroovyShell(binding).parse(new File(args[0]))
jenkinsfile.metaClass.methodMissing = { String name, Object arguments ->
    pipeline.invokeMethod(name, arguments)
}
pipeline.jenkinsfile = jenkinsfile
jenkinsfile.run()
println JsonOutput.toJson([failed: pipeline.failed, events: pipeline.events])
