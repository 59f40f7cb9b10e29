# Completion of virtfs for fish (complete(1)). The program itself knows the candidates.
function __virtfs_complete
    set -l words (commandline -opc) (commandline -ct)
    set -l lines ($words[1] __complete $words[2..-1] 2>/dev/null)
    switch "$lines[1]"
        case 'command*'
            set -l command $words[(math (string replace 'command ' '' -- $lines[1]) + 2)..-1]
            complete -C (string join ' ' -- (string escape -- $command[1..-2]) $command[-1])
        case files
            __fish_complete_path (commandline -ct)
        case directories
            __fish_complete_directories (commandline -ct) ''
    end
    string join \n -- $lines[2..-1]
end
complete -c virtfs -f -a '(__virtfs_complete)'
