# Tell Snakemake whether a job of PBS Professional is running (or waits), has succeeded or has failed.
if text=$(qstat -x -f "$1" 2>&1); then
    field() { printf '%s\n' "$text" | sed -n "s/^ *$1 = //p"; }
    case "$(field job_state) $(field Exit_status)" in
        "F 0") echo success ;;
        F*) echo failed ;;
        *) echo running ;;
    esac
    exit
fi
echo "$text" >&2
case $text in
    # "PBS is not configured to maintain job history": nobody can say how a job has ended.
    *"job history"*) exit 1 ;;
    *"Unknown Job Id"*) echo failed ;;
    # PBS does not answer; its jobs go on.
    *) echo running ;;
esac
